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

/* The bytes of L4 header that a protocol must show; 0 for those that are not looked into. */
static __always_inline __u32 l4_minimum(__u32 protocol, __u32 v6)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 20;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return 8;
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		return 12;
	case IPPROTO_ICMP:
		return v6 ? 0 : 8;
	case IPPROTO_ICMPV6:
		return v6 ? 8 : 0;
	default:
		return 0;
	}
}

/* room: bytes from offset to the end of the packet, by the frame and by the IP header. */
static __always_inline void parse_l4(struct xdp_md *ctx, struct packet *packet, __u32 offset,
				     __u32 room)
{
	__u32 minimum = l4_minimum(packet->protocol, packet->v6);
	void *end = (void *)(long)ctx->data_end;
	__u8 *l4;

	if (!minimum)
		return;
	if (room < minimum || offset > MAX_OFFSET)
		goto truncated;
	l4 = (void *)(long)ctx->data + offset;
	if ((void *)(l4 + 8) > end)
		goto truncated;
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6) {
		packet->icmp = l4[0] << 8 | l4[1];
		return;
	}
	if (packet->protocol == IPPROTO_TCP) {
		if ((void *)(l4 + 20) > end)
			goto truncated;
		packet->tcp_flags = l4[13];
		packet->invalid |= l4[12] < 5 << 4;
	}
	packet->sport = bpf_ntohs(*(__be16 *)l4);
	packet->dport = bpf_ntohs(*(__be16 *)(l4 + 2));
	return;
truncated:
	packet->malformed = 1;
	packet->bad_fragment |= packet->fragment == FRAGMENT_FIRST;
}

static __always_inline enum parsed parse_ipv4(struct xdp_md *ctx, struct packet *packet,
					      __u32 offset)
{
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(long)ctx->data + offset;
	__u32 header, total, available, fragment;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return PARSED_MALFORMED;
	available = bytes_between(ip, end);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	fragment = bpf_ntohs(ip->frag_off);
	packet->src.lo = bpf_ntohl(ip->saddr);
	packet->dst.lo = bpf_ntohl(ip->daddr);
	packet->protocol = ip->protocol;
	packet->length = total;
	packet->ttl = ip->ttl;
	packet->dscp = ip->tos >> 2;
	if (fragment & IP_FRAGMENT_OFFSET)
		packet->fragment = FRAGMENT_LATER;
	else if (fragment & IP_MORE_FRAGMENTS)
		packet->fragment = FRAGMENT_FIRST;
	if (header < sizeof(*ip) || total < header) {
		packet->invalid = packet->malformed = 1;
		return PARSED_IP;
	}
	if (packet->fragment &&
	    (fragment & IP_FRAGMENT_OFFSET) * 8 + total - header > 65535)
		packet->bad_fragment = 1;
	if (header > available) {
		packet->malformed = 1;
		return PARSED_IP;
	}
	if (packet->fragment != FRAGMENT_LATER)
		parse_l4(ctx, packet, offset + header,
			 (total < available ? total : available) - header);
	return PARSED_IP;
}

static __always_inline enum parsed parse_ipv6(struct xdp_md *ctx, struct packet *packet,
					      __u32 offset)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + offset;
	__u32 payload, frame_end, ip_end, limit;
	__be64 *address;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return PARSED_MALFORMED;
	address = (__be64 *)&ip->saddr;
	packet->v6 = 1;
	packet->src.hi = bpf_be64_to_cpu(address[0]);
	packet->src.lo = bpf_be64_to_cpu(address[1]);
	packet->dst.hi = bpf_be64_to_cpu(address[2]);
	packet->dst.lo = bpf_be64_to_cpu(address[3]);
	packet->protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->dscp = bpf_ntohs(*(__be16 *)ip) >> 6 & 63;
	payload = bpf_ntohs(ip->payload_len);
	packet->length = payload + sizeof(*ip);

	frame_end = frame_bytes(ctx);
	ip_end = offset + sizeof(*ip) + payload;
	if (!payload && packet->protocol == IPPROTO_HOPOPTS)
		ip_end = frame_end; /* a jumbogram (RFC 2675) */
	limit = ip_end < frame_end ? ip_end : frame_end;
	offset += sizeof(*ip);
	if (is_extension(packet->protocol)) {
		__u64 found = parse_extensions(ctx, offset, packet->protocol, limit, ip_end);

		packet->protocol = EXT_PROTOCOL(found);
		packet->fragment = EXT_FRAGMENT(found);
		packet->bad_fragment = EXT_BAD_FRAGMENT(found);
		packet->malformed = EXT_MALFORMED(found);
		offset = EXT_OFFSET(found);
		if (packet->malformed || packet->fragment == FRAGMENT_LATER)
			return PARSED_IP;
	}
	parse_l4(ctx, packet, offset, limit - offset);
	return PARSED_IP;
}

static __always_inline enum parsed parse(struct xdp_md *ctx, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 offset = sizeof(struct ethhdr);
	__u16 type;

	packet->protocol = NO_PROTOCOL;
	packet->sport = packet->dport = NO_PORT;
	packet->tcp_flags = NO_TCP_FLAGS;
	packet->icmp = NO_ICMP;
	packet->vlan = NO_VLAN;
	if (data + sizeof(struct ethhdr) > end)
		return PARSED_MALFORMED;
	type = ((struct ethhdr *)data)->h_proto;
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		__be16 *tag = data + offset;

		if (!is_tag(type))
			break;
		if ((void *)(tag + 2) > end)
			return PARSED_MALFORMED;
		if (i == 0)
			packet->vlan = bpf_ntohs(tag[0]) & 0xfff;
		type = tag[1];
		offset += 4;
	}
	if (type == bpf_htons(ETH_P_IP))
		return parse_ipv4(ctx, packet, offset);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(ctx, packet, offset);
	return is_tag(type) ? PARSED_VLAN_DEPTH : PARSED_NON_IP;
}

#endif
