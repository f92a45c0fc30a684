/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frame to packet descriptor. src/packet mirrors this file; the frame corpus and the oracle test
 * hold both to the same answers.
 *
 * The same functions parse frames in one buffer and frames in several: a header is read in place or
 * copied first. `scattered` is a constant wherever they are inlined.
 */
#ifndef XDPGATE_PARSING_H
#define XDPGATE_PARSING_H

#define IP_FRAGMENT_OFFSET 0x1fff
#define IP_MORE_FRAGMENTS 0x2000

/* Offsets stay far below what the verifier allows for packet pointers (MAX_PACKET_OFF). */
#define MAX_OFFSET 0x7fff

/* The longest header that is read as one: IPv6. */
#define MAX_HEADER 40

struct frame {
	struct xdp_md *ctx;
	__u32 bytes; /* in all buffers */
	bool scattered; /* in more than one; a driver may leave the first one empty */
};

/* A header, or NULL where the frame ends before it does. From a scattered frame it is copied to
 * `buffer`, where it stays until the next one is read. */
static __always_inline void *header_at(const struct frame *frame, __u32 offset, __u32 size,
				       __u64 *buffer)
{
	void *header;

	if (frame->scattered)
		return bpf_xdp_load_bytes(frame->ctx, offset, buffer, size) ? NULL : buffer;
	header = (void *)(long)frame->ctx->data + offset;
	return header + size > (void *)(long)frame->ctx->data_end ? NULL : header;
}

/* struct ethhdr is packed, which would be read byte by byte. */
static __always_inline __be16 ethertype(void *ethernet)
{
	return *(__be16 *)(ethernet + offsetof(struct ethhdr, h_proto));
}

static __always_inline bool is_tag(__u16 type)
{
	return type == bpf_htons(0x8100) || type == bpf_htons(0x88a8) || type == bpf_htons(0x9100);
}

static __always_inline bool is_extension(__u32 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
	       next == IPPROTO_AH || next == IPPROTO_DSTOPTS || next == IPPROTO_MH || next == 139 ||
	       next == 140;
}

/* What parse_extensions found, in one word: a global function returns a scalar. */
#define EXT_PROTOCOL(r) ((__u32)(r) & 0x1ff)
#define EXT_FRAGMENT(r) ((__u32)((r) >> 9) & 3)
#define EXT_BAD_FRAGMENT(r) ((__u32)((r) >> 11) & 1)
#define EXT_MALFORMED(r) ((__u32)((r) >> 12) & 1)
#define EXT_OFFSET(r) ((__u32)((r) >> 16))

static __always_inline __u64 ext_result(__u32 protocol, __u32 fragment, __u32 bad, __u32 malformed,
					__u32 offset)
{
	return protocol | fragment << 9 | bad << 11 | malformed << 12 | (__u64)offset << 16;
}

/*
 * Walks an IPv6 extension chain (RFC 8200 section 4; AH: RFC 4302). offset: of the first
 * extension header in the frame; limit: where headers must end; ip_end: where the packet ends by
 * its own length.
 */
static __always_inline __u64 walk_extensions(const struct frame *frame, __u32 offset, __u32 next,
					     __u32 limit, __u32 ip_end)
{
	__u64 buffer[1];
	__u32 fragment = FRAGMENT_NONE, bad = 0;

	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		__u8 *header;
		__u32 size;

		if (!is_extension(next))
			return ext_result(next, fragment, bad, 0, offset);
		if (offset > MAX_OFFSET || offset + 8 > limit)
			return ext_result(NO_PROTOCOL, fragment, bad | fragment, 1, 0);
		header = header_at(frame, offset, 8, buffer);
		if (!header)
			return ext_result(NO_PROTOCOL, fragment, bad | fragment, 1, 0);
		if (next == IPPROTO_FRAGMENT)
			size = 8;
		else if (next == IPPROTO_AH)
			size = (header[1] + 2) * 4;
		else
			size = (header[1] + 1) * 8;
		if (offset + size > limit)
			return ext_result(NO_PROTOCOL, fragment, bad | fragment, 1, 0);
		if (next == IPPROTO_FRAGMENT) {
			__u32 word = header[2] << 8 | header[3];
			__u32 fragment_offset = word >> 3;

			if (fragment_offset || word & 1) {
				fragment = fragment_offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
				if (fragment_offset * 8 + ip_end - (offset + 8) > 65535)
					bad = 1;
			}
			if (fragment_offset)
				return ext_result(header[0], fragment, bad, 0, offset);
		}
		next = header[0];
		offset += size;
	}
	if (is_extension(next))
		return ext_result(NO_PROTOCOL, fragment, bad, 1, 0);
	return ext_result(next, fragment, bad, 0, offset);
}

/* Global functions, so that the verifier sees them once, and packets without extension headers
 * never pay for them. */
__noinline __u64 parse_extensions(struct xdp_md *ctx, __u32 offset, __u32 next, __u32 limit,
				  __u32 ip_end)
{
	struct frame frame = { .ctx = ctx };

	return walk_extensions(&frame, offset, next, limit, ip_end);
}

__noinline __u64 parse_scattered_extensions(struct xdp_md *ctx, __u32 offset, __u32 next,
					    __u32 limit, __u32 ip_end)
{
	struct frame frame = { .ctx = ctx, .scattered = true };

	/* Global functions are verified whether they are called or not. */
	if (!host.frags)
		return 0;
	return walk_extensions(&frame, offset, next, limit, ip_end);
}

/* What is read of an L4 header, by protocol, IPv6 in the second half. A table, because the
 * protocol of the next packet cannot be predicted. */
static const __u8 l4_kind[512] = {
	[IPPROTO_TCP] = 20 | L4_PORTS,
	[IPPROTO_UDP] = 8 | L4_PORTS,
	[IPPROTO_UDPLITE] = 8 | L4_PORTS,
	[IPPROTO_SCTP] = 12 | L4_PORTS,
	[IPPROTO_DCCP] = 12 | L4_PORTS,
	[IPPROTO_ICMP] = 8 | L4_ICMP,
	[256 + IPPROTO_TCP] = 20 | L4_PORTS,
	[256 + IPPROTO_UDP] = 8 | L4_PORTS,
	[256 + IPPROTO_UDPLITE] = 8 | L4_PORTS,
	[256 + IPPROTO_SCTP] = 12 | L4_PORTS,
	[256 + IPPROTO_DCCP] = 12 | L4_PORTS,
	[256 + IPPROTO_ICMPV6] = 8 | L4_ICMP,
};

static __always_inline void parse_tcp_fields(struct packet *packet, const __u8 *header)
{
	packet->tcp_flags = header[13];
	if (header[12] < 5 << 4)
		packet->state |= STATE_INVALID;
}

/* room: bytes from offset to the end of the packet, by the frame and by the IP header. */
static __always_inline void parse_l4(const struct frame *frame, struct packet *packet, bool v6,
				     __u32 protocol, __u32 fragment, __u32 offset,
				     __u32 room, __u64 *buffer)
{
	__u32 kind = l4_kind[(protocol & 0xff) | (v6 ? 256 : 0)];
	__u8 *header;

	if (!kind)
		return;
	if (room < (kind & L4_MINIMUM) || offset > MAX_OFFSET)
		goto truncated;
	header = header_at(frame, offset, 8, buffer);
	if (!header)
		goto truncated;
	packet->l4 = kind;
	packet->first = bpf_ntohs(*(__be16 *)header);
	packet->second = bpf_ntohs(*(__be16 *)(header + 2));
	if (WANT_FIELDS && protocol == IPPROTO_TCP) {
		header = header_at(frame, offset, 20, buffer);
		if (!header)
			goto truncated;
		parse_tcp_fields(packet, header);
	}
	return;
truncated:
	packet->l4 = 0;
	packet->malformed = 1;
	if (fragment == FRAGMENT_FIRST)
		packet->state |= STATE_BAD_FRAGMENT;
}

static __always_inline enum parsed parse_ipv4(const struct frame *frame, struct packet *packet,
					      __u32 offset, __u64 *buffer)
{
	struct iphdr *ip = header_at(frame, offset, sizeof(*ip), buffer);
	__u32 header, total, available, fragment, position, protocol;

	if (!ip || ip->version != 4)
		return PARSED_MALFORMED;
	available = frame->bytes - offset;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	position = bpf_ntohs(ip->frag_off);
	protocol = ip->protocol;
	packet->src.lo = bpf_ntohl(ip->saddr);
	packet->dst.lo = bpf_ntohl(ip->daddr);
	packet->protocol = protocol;
	packet->ttl = ip->ttl;
	if (WANT_FIELDS) {
		packet->length = total;
		packet->dscp = ip->tos >> 2;
	}
	fragment = FRAGMENT_NONE;
	if (__builtin_expect(position & (IP_FRAGMENT_OFFSET | IP_MORE_FRAGMENTS), 0)) {
		position &= IP_FRAGMENT_OFFSET;
		fragment = position ? FRAGMENT_LATER : FRAGMENT_FIRST;
		packet->state = fragment;
		if (header >= sizeof(*ip) && total >= header &&
		    position * 8 + total - header > 65535)
			packet->state |= STATE_BAD_FRAGMENT;
	}
	if (header < sizeof(*ip) || total < header) {
		packet->malformed = 1;
		packet->state |= STATE_INVALID;
		return PARSED_IP;
	}
	if (header > available) {
		packet->malformed = 1;
		return PARSED_IP;
	}
	if (fragment != FRAGMENT_LATER)
		parse_l4(frame, packet, false, protocol, fragment, offset + header,
			 (total < available ? total : available) - header, buffer);
	return PARSED_IP;
}

static __always_inline enum parsed parse_ipv6(const struct frame *frame, struct packet *packet,
					      __u32 offset, __u64 *buffer)
{
	struct ipv6hdr *ip = header_at(frame, offset, sizeof(*ip), buffer);
	__u32 payload, ip_end, limit, protocol, fragment = FRAGMENT_NONE;
	__be64 *address;

	if (!ip || ip->version != 6)
		return PARSED_MALFORMED;
	address = (__be64 *)&ip->saddr;
	packet->v6 = 1;
	packet->src.hi = bpf_be64_to_cpu(address[0]);
	packet->src.lo = bpf_be64_to_cpu(address[1]);
	packet->dst.hi = bpf_be64_to_cpu(address[2]);
	packet->dst.lo = bpf_be64_to_cpu(address[3]);
	protocol = ip->nexthdr;
	payload = bpf_ntohs(ip->payload_len);
	packet->ttl = ip->hop_limit;
	if (WANT_FIELDS) {
		packet->length = payload + sizeof(*ip);
		packet->dscp = bpf_ntohs(*(__be16 *)ip) >> 6 & 63;
	}

	ip_end = offset + sizeof(*ip) + payload;
	if (!payload && protocol == IPPROTO_HOPOPTS)
		ip_end = frame->bytes; /* a jumbogram (RFC 2675) */
	limit = ip_end < frame->bytes ? ip_end : frame->bytes;
	offset += sizeof(*ip);
	if (__builtin_expect(is_extension(protocol), 0)) {
		__u64 found;

		if (frame->scattered)
			found = parse_scattered_extensions(frame->ctx, offset, protocol, limit,
							   ip_end);
		else
			found = parse_extensions(frame->ctx, offset, protocol, limit, ip_end);
		protocol = EXT_PROTOCOL(found);
		fragment = EXT_FRAGMENT(found);
		packet->protocol = protocol;
		packet->state = fragment | EXT_BAD_FRAGMENT(found) << 2;
		packet->malformed = EXT_MALFORMED(found);
		offset = EXT_OFFSET(found);
		if (EXT_MALFORMED(found) || fragment == FRAGMENT_LATER)
			return PARSED_IP;
	}
	packet->protocol = protocol;
	parse_l4(frame, packet, true, protocol, fragment, offset, limit - offset, buffer);
	return PARSED_IP;
}

static __always_inline enum parsed parse_frame(const struct frame *frame, struct packet *packet)
{
	__u32 offset = sizeof(struct ethhdr);
	__u64 buffer[MAX_HEADER / sizeof(__u64)];
	void *ethernet = header_at(frame, 0, sizeof(struct ethhdr), buffer);
	__u16 type;

	if (!ethernet)
		return PARSED_MALFORMED;
	type = ethertype(ethernet);
	if (is_tag(type)) {
#pragma unroll
		for (int i = 0; i < MAX_VLAN_TAGS; i++) {
			__be16 *tag = header_at(frame, offset, 4, buffer);

			if (!tag)
				return PARSED_MALFORMED;
			if (i == 0)
				packet->vlan = bpf_ntohs(tag[0]) & 0xfff;
			type = tag[1];
			offset += 4;
			if (!is_tag(type))
				break;
		}
	}
	if (type == bpf_htons(ETH_P_IP))
		return parse_ipv4(frame, packet, offset, buffer);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(frame, packet, offset, buffer);
	return is_tag(type) ? PARSED_VLAN_DEPTH : PARSED_NON_IP;
}

/* Of its own, so that only frames in several buffers pay for it. */
static __noinline enum parsed parse_scattered(struct xdp_md *ctx, struct packet *packet,
					      __u32 bytes)
{
	struct frame frame = { .ctx = ctx, .bytes = bytes, .scattered = true };

	return parse_frame(&frame, packet);
}

static __noinline enum parsed parse_linear(struct xdp_md *ctx, struct packet *packet, __u32 bytes)
{
	struct frame frame = { .ctx = ctx, .bytes = bytes };

	return parse_frame(&frame, packet);
}

/*
 * A short cut for nearly all packets: in one buffer, no tag, no option, no extension header, no
 * fragment, a known L4 protocol, and as long as they say. Returns false, and has changed nothing,
 * for any other, which parse_linear judges from its start.
 */
static __always_inline bool parse_common(struct xdp_md *ctx, struct packet *packet, __u32 bytes)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct ipv6hdr *ip6 = data + sizeof(struct ethhdr);
	__u32 length, kind;
	__u8 *header;

	bytes -= sizeof(struct ethhdr);
	header = (void *)(ip + 1);
	if ((void *)(header + 8) > end)
		return false;
	if (ethertype(data) == bpf_htons(ETH_P_IP)) {
		length = bpf_ntohs(ip->tot_len);
		kind = l4_kind[ip->protocol];
		if (*(__u8 *)ip != (4 << 4 | 5) || !kind || length > bytes ||
		    ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET | IP_MORE_FRAGMENTS) ||
		    length < sizeof(*ip) + (kind & L4_MINIMUM))
			return false;
		if (WANT_FIELDS) {
			if (ip->protocol == IPPROTO_TCP) {
				if ((void *)(header + 20) > end)
					return false;
				parse_tcp_fields(packet, header);
			}
			packet->length = length;
			packet->dscp = ip->tos >> 2;
		}
		packet->src.lo = bpf_ntohl(ip->saddr);
		packet->dst.lo = bpf_ntohl(ip->daddr);
		packet->protocol = ip->protocol;
		packet->ttl = ip->ttl;
	} else {
		__be64 *address = (__be64 *)&ip6->saddr;

		header = (void *)(ip6 + 1);
		if (ethertype(data) != bpf_htons(ETH_P_IPV6) || (void *)(header + 8) > end)
			return false;
		length = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		kind = l4_kind[256 + ip6->nexthdr];
		if (ip6->version != 6 || !kind || length > bytes ||
		    length < sizeof(*ip6) + (kind & L4_MINIMUM))
			return false;
		if (WANT_FIELDS) {
			if (ip6->nexthdr == IPPROTO_TCP) {
				if ((void *)(header + 20) > end)
					return false;
				parse_tcp_fields(packet, header);
			}
			packet->length = length;
			packet->dscp = bpf_ntohs(*(__be16 *)ip6) >> 6 & 63;
		}
		packet->v6 = 1;
		packet->src.hi = bpf_be64_to_cpu(address[0]);
		packet->src.lo = bpf_be64_to_cpu(address[1]);
		packet->dst.hi = bpf_be64_to_cpu(address[2]);
		packet->dst.lo = bpf_be64_to_cpu(address[3]);
		packet->protocol = ip6->nexthdr;
		packet->ttl = ip6->hop_limit;
	}
	packet->l4 = kind;
	packet->first = bpf_ntohs(*(__be16 *)header);
	packet->second = bpf_ntohs(*(__be16 *)(header + 2));
	return true;
}

static __always_inline enum parsed parse(struct xdp_md *ctx, struct packet *packet, __u32 bytes)
{
	if (host.frags && __builtin_expect(bytes != linear_bytes(ctx), 0))
		return parse_scattered(ctx, packet, bytes);
	if (__builtin_expect(parse_common(ctx, packet, bytes), 1))
		return PARSED_IP;
	return parse_linear(ctx, packet, bytes);
}

#endif
