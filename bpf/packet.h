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

/* The packet descriptor: filled once by parsing.h, the lookups never touch packet bytes. Field
 * values that a packet lacks are the last value of their axis (abi.h). */
struct packet {
	struct address src, dst;
	__u32 v6; /* 0 or 1 */
	__u32 protocol;
	__u32 sport, dport; /* host byte order */
	__u32 tcp_flags;
	__u32 icmp; /* type << 8 | code */
	__u32 length;
	__u32 vlan;
	__u32 ttl, dscp;
	__u32 fragment;
	__u32 bad_fragment, invalid, malformed; /* 0 or 1 */
};

/* The bytes from one packet pointer to another. The barrier keeps the subtraction 64 bits wide:
 * the verifier refuses arithmetic on half a pointer. */
static __always_inline __u32 bytes_between(void *from, void *to)
{
	__u64 bytes = to - from;

	asm volatile("" : "+r"(bytes));
	return bytes;
}

static __always_inline __u32 frame_bytes(struct xdp_md *ctx)
{
	return bytes_between((void *)(long)ctx->data, (void *)(long)ctx->data_end);
}

#define NO_PROTOCOL (PROTOCOL_VALUES - 1)
#define NO_PORT (PORT_VALUES - 1)
#define NO_TCP_FLAGS (TCP_FLAGS_VALUES - 1)
#define NO_ICMP (ICMP_VALUES - 1)
#define NO_VLAN (VLAN_VALUES - 1)

#endif
