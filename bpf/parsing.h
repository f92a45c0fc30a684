/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frame to packet descriptor. src/packet mirrors this file; the frame corpus and the oracle test
 * hold both to the same answers.
 */
#ifndef XDPGATE_PARSING_H
#define XDPGATE_PARSING_H

#define IP_FRAGMENT_OFFSET 0x1fff
#define IP_MORE_FRAGMENTS 0x2000

/* Offsets stay far below what the verifier allows for packet pointers (MAX_PACKET_OFF). */
#define MAX_OFFSET 0x7fff

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
 * its own length. A global function, so that the verifier sees it once, and packets without
 * extension headers never pay for it.
 */
__noinline __u64 parse_extensions(struct xdp_md *ctx, __u32 offset, __u32 next, __u32 limit,
				  __u32 ip_end)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 fragment = FRAGMENT_NONE, bad = 0;

	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		__u8 *header;
		__u32 size;

		if (!is_extension(next))
			return ext_result(next, fragment, bad, 0, offset);
		if (offset > MAX_OFFSET || offset + 8 > limit)
			return ext_result(NO_PROTOCOL, fragment, bad | fragment, 1, 0);
		header = data + offset;
		if ((void *)(header + 8) > end)
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

/* room: bytes from offset to the end of the packet, by the frame and by the IP header. */
static __always_inline void parse_l4(struct xdp_md *ctx, struct packet *packet, bool v6,
				     __u32 protocol, __u32 fragment, __u32 offset,
				     __u32 room)
{
	__u32 kind = l4_kind[(protocol & 0xff) | (v6 ? 256 : 0)];
	void *end = (void *)(long)ctx->data_end;
	__u8 *header;

	if (!kind)
		return;
	if (room < (kind & L4_MINIMUM) || offset > MAX_OFFSET)
		goto truncated;
	header = (void *)(long)ctx->data + offset;
	if ((void *)(header + 8) > end)
		goto truncated;
	packet->l4 = kind;
	packet->first = bpf_ntohs(*(__be16 *)header);
	packet->second = bpf_ntohs(*(__be16 *)(header + 2));
	if (WANT_FIELDS && protocol == IPPROTO_TCP) {
		if ((void *)(header + 20) > end)
			goto truncated;
		packet->tcp_flags = header[13];
		if (header[12] < 5 << 4)
			packet->state |= STATE_INVALID;
	}
	return;
truncated:
	packet->l4 = 0;
	packet->malformed = 1;
	if (fragment == FRAGMENT_FIRST)
		packet->state |= STATE_BAD_FRAGMENT;
}

static __always_inline enum parsed parse_ipv4(struct xdp_md *ctx, struct packet *packet,
					      __u32 offset)
{
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(long)ctx->data + offset;
	__u32 header, total, available, fragment, position, protocol;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return PARSED_MALFORMED;
	available = bytes_between(ip, end);
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
		parse_l4(ctx, packet, false, protocol, fragment, offset + header,
			 (total < available ? total : available) - header);
	return PARSED_IP;
}

static __always_inline enum parsed parse_ipv6(struct xdp_md *ctx, struct packet *packet,
					      __u32 offset)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + offset;
	__u32 payload, frame_end, ip_end, limit, protocol, fragment = FRAGMENT_NONE;
	__be64 *address;

	if ((void *)(ip + 1) > end || ip->version != 6)
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

	frame_end = frame_bytes(ctx);
	ip_end = offset + sizeof(*ip) + payload;
	if (!payload && protocol == IPPROTO_HOPOPTS)
		ip_end = frame_end; /* a jumbogram (RFC 2675) */
	limit = ip_end < frame_end ? ip_end : frame_end;
	offset += sizeof(*ip);
	if (__builtin_expect(is_extension(protocol), 0)) {
		__u64 found = parse_extensions(ctx, offset, protocol, limit, ip_end);

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
	parse_l4(ctx, packet, true, protocol, fragment, offset, limit - offset);
	return PARSED_IP;
}

static __always_inline enum parsed parse(struct xdp_md *ctx, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 offset = sizeof(struct ethhdr);
	__u16 type;

	if (data + sizeof(struct ethhdr) > end)
		return PARSED_MALFORMED;
	/* struct ethhdr is packed, which would be read byte by byte. */
	type = *(__be16 *)(data + offsetof(struct ethhdr, h_proto));
	if (__builtin_expect(is_tag(type), 0)) {
#pragma unroll
		for (int i = 0; i < MAX_VLAN_TAGS; i++) {
			__be16 *tag = data + offset;

			if ((void *)(tag + 2) > end)
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
		return parse_ipv4(ctx, packet, offset);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(ctx, packet, offset);
	return is_tag(type) ? PARSED_VLAN_DEPTH : PARSED_NON_IP;
}

#endif
