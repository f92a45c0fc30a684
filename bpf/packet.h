/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef XDPGATE_PACKET_H
#define XDPGATE_PACKET_H

enum parsed {
	PARSED_IP = 0,
	PARSED_NON_IP,
	PARSED_VLAN_DEPTH,
	PARSED_MALFORMED, /* no usable L3 header */
};

enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2,
};

/* An address in host byte order. IPv4 stands in the low 32 bits of lo. */
struct address {
	__u64 hi, lo;
};

/*
 * The packet descriptor: filled once by parsing.h, the lookups never touch packet bytes. It is kept
 * in memory on purpose (see new_packet): as values in registers its fields would be stored again on
 * every way through the parser.
 */
struct packet {
	struct address src, dst;
	__u32 v6; /* 0 or 1 */
	__u32 protocol;
	__u32 state; /* fragment state | STATE_BAD_FRAGMENT | STATE_INVALID */
	__u32 malformed; /* 0 or 1: something behind the L3 header is cut off; no L4 header then */
	__u32 l4; /* what kind of L4 header was read: L4_* bits, 0 for none */
	__u32 first, second; /* its first two 16-bit words: ports, or ICMP type << 8 | code */
	__u32 ttl;
	/* Filled only where FEATURE_FIELDS is set. */
	__u32 length;
	__u32 dscp;
	__u32 vlan; /* VLAN_VALUES - 1 for none */
	__u32 tcp_flags; /* TCP_FLAGS_VALUES - 1 for none */
};

#define L4_MINIMUM 31 /* the bytes that the header must have */
#define L4_PORTS (1 << 5)
#define L4_ICMP (1 << 6)

#define STATE_BAD_FRAGMENT (1 << 2)
#define STATE_INVALID (1 << 3)

/* Whether some rule looks at more than addresses. If not, the verifier removes what parses it. */
#define WANT_FIELDS (shape.features & FEATURE_FIELDS)

/* Whether some rule looks at packets at all. */
#define HAS_RULES                                                                                  \
	(shape.features &                                                                          \
	 (FEATURE_SRC | FEATURE_DST | FEATURE_ROWS | FEATURE_PAIRS | FEATURE_EXACT))

/* Whether each rule is found by one address or one five-tuple, holds always and does nothing but to
 * decide. Asked once: of each feature that is asked for the load stays when the branch is removed. */
#define ONLY_SIMPLE_RULES                                                                          \
	(!(shape.features & ~(FEATURE_FAILSAFE | FEATURE_MANAGEMENT | FEATURE_DEFAULT_DROP |       \
			      FEATURE_MALFORMED_DROP | FEATURE_SRC | FEATURE_DST | FEATURE_EXACT)))

static __always_inline void new_packet(struct packet *packet)
{
	packet->src.hi = 0;
	packet->dst.hi = 0;
	packet->v6 = 0;
	packet->protocol = PROTOCOL_VALUES - 1;
	packet->state = 0;
	packet->malformed = 0;
	packet->l4 = 0;
	packet->first = packet->second = 0;
	if (WANT_FIELDS) {
		packet->tcp_flags = TCP_FLAGS_VALUES - 1;
		packet->vlan = VLAN_VALUES - 1;
	}
	asm volatile("" : : "r"(packet) : "memory");
}

/* The bytes from one packet pointer to another. The barrier keeps the subtraction 64 bits wide:
 * the verifier refuses arithmetic on half a pointer. */
static __always_inline __u32 bytes_between(void *from, void *to)
{
	__u64 bytes = to - from;

	asm volatile("" : "+r"(bytes));
	return bytes;
}

/* The bytes that lie in the first buffer, which are all where there is only one. */
static __always_inline __u32 linear_bytes(struct xdp_md *ctx)
{
	return bytes_between((void *)(long)ctx->data, (void *)(long)ctx->data_end);
}

/* The bytes of the whole frame. */
static __always_inline __u32 frame_bytes(struct xdp_md *ctx)
{
	return host.frags ? bpf_xdp_get_buff_len(ctx) : linear_bytes(ctx);
}

#define NO_PROTOCOL (PROTOCOL_VALUES - 1)

#endif
