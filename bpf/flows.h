/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rule that was found for a flow, remembered: packets of a flow all have the same, so that few
 * are classified. A flow is all of a packet that the rules of this policy look at.
 *
 * All CPUs share one table and write it by plain stores, as user space never does. A place is
 * believed only if its check word fits flow, value and generation: then all of it was written for
 * this flow by one CPU. What others left half written, or another generation wrote, is not there.
 */
#ifndef XDPGATE_FLOWS_H
#define XDPGATE_FLOWS_H

#define REMEMBERS_FLOWS (shape.features & FEATURE_FLOWS && host.flow_lines && !host.evaluate)

/* Fields other than addresses, ports and protocol. */
#define FIELD_AXES                                                                                 \
	(1u << AXIS_TCP_FLAGS | 1u << AXIS_ICMP | 1u << AXIS_LENGTH | 1u << AXIS_STATE |           \
	 1u << AXIS_VLAN | 1u << AXIS_TTL | 1u << AXIS_DSCP)
#define AXES_IN_USE (shape.axes | shape.class_axes)
#define PORTS_IN_USE                                                                               \
	(shape.features & (FEATURE_PAIRS | FEATURE_EXACT) ||                                       \
	 AXES_IN_USE & (1u << AXIS_SPORT | 1u << AXIS_DPORT))

/* Where rules or entries expire a flow is looked up anew every 2^4 ticks: so late they may be. */
#define FLOW_TICKS_SHIFT 4
#define FLOW_WINDOW_BITS 40

#define FLOW_RULE(value) ((__u32)(value) & 0xffffff)
#define FLOW_FLAGS(value) ((value) >> 24 & 0xff)
#define FLOW_COUNTER(value) ((value) >> 32)

/* Where the interface scopes begin in what says the rest of a flow. */
#define FLOW_SCOPES_BIT 44
_Static_assert(FLOW_SCOPES_BIT + FLOW_SCOPES <= 64, "flow");

struct flow {
	struct address src, dst; /* of IPv4: both in src.hi */
	__u64 rest; /* ports, protocol, kinds of headers, interface scopes */
	__u64 fields; /* those others that rules look at */
	__u64 check; /* what the check word of value 0 would be */
	__u32 line;
};

/* A flow fills a line, or half of one where two words say all of it. */
#define IS_SHORT(packet) (!(AXES_IN_USE & FIELD_AXES) && !(packet)->v6)
#define FLOW_WORDS 8
#define SHORT_WORDS 4

static __always_inline __u64 flow_fields(const struct packet *packet)
{
	__u64 fields = 0;

	if (AXES_IN_USE & 1u << AXIS_TCP_FLAGS)
		fields = packet->tcp_flags;
	if (AXES_IN_USE & 1u << AXIS_LENGTH)
		fields |= (__u64)packet->length << 9;
	if (AXES_IN_USE & 1u << AXIS_STATE)
		fields |= (__u64)packet->state << 26;
	if (AXES_IN_USE & 1u << AXIS_VLAN)
		fields |= (__u64)packet->vlan << 30;
	if (AXES_IN_USE & 1u << AXIS_TTL)
		fields |= (__u64)packet->ttl << 43;
	if (AXES_IN_USE & 1u << AXIS_DSCP)
		fields |= (__u64)packet->dscp << 51;
	return fields;
}

static __always_inline void new_flow(struct flow *flow, const struct packet *packet,
				     const struct around *around, __u64 zero)
{
	__u64 hash, when = generation << FLOW_WINDOW_BITS;

	flow->rest = (__u64)packet->protocol << 32 | (__u64)(packet->l4 >> 5) << 41 |
		     (__u64)packet->v6 << 43;
	if (PORTS_IN_USE && packet->l4 & L4_PORTS)
		flow->rest |= packet->first | (__u64)packet->second << 16;
	if (AXES_IN_USE & 1u << AXIS_ICMP && packet->l4 & L4_ICMP)
		flow->rest |= packet->first;
	if (shape.features & FEATURE_SCOPES)
		flow->rest |= around->scopes << FLOW_SCOPES_BIT;
	flow->fields = flow_fields(packet);
	if (packet->v6) {
		flow->src = packet->src;
		flow->dst = packet->dst;
		hash = hash16(host.seed, packet->src.hi, packet->src.lo, 0, flow->rest);
		hash = hash16(host.seed, packet->dst.hi, packet->dst.lo, 1, hash ^ flow->fields);
	} else {
		flow->src.hi = packet->src.lo << 32 | packet->dst.lo;
		flow->src.lo = flow->dst.hi = flow->dst.lo = 0;
		hash = hash16(host.seed, flow->src.hi, flow->rest, 0, flow->fields);
	}
	if (shape.features & (FEATURE_TIMED | FEATURE_CONDITIONS))
		when |= around->ticks >> FLOW_TICKS_SHIFT & ((1ull << FLOW_WINDOW_BITS) - 1);
	flow->line = home_line(hash, host.flow_lines);
	flow->check = hash + when * MIX_1;
	forget(flow->line);
	forget(flow->check);
	forget(flow->rest);
}

/* The words of a place: what a flow is, what is known of it, and the check word. */
static __always_inline __u64 flow_at(const struct flow *flow, const __u64 *words, bool is_short)
{
	__u64 value = READ_WORD(words[is_short ? 2 : 6]);
	__u64 check = READ_WORD(words[is_short ? 3 : 7]);
	__u64 differ = (words[0] ^ flow->src.hi) | (check ^ (flow->check + value * MIX_2));

	if (is_short)
		differ |= words[1] ^ flow->rest;
	else
		differ |= (words[1] ^ flow->src.lo) | (words[2] ^ flow->dst.hi) |
			  (words[3] ^ flow->dst.lo) | (words[4] ^ flow->rest) |
			  (words[5] ^ flow->fields);
	return differ ? 0 : value;
}

static __always_inline struct line *flow_line(const struct flow *flow)
{
	__u32 number = flow->line;

	return bpf_map_lookup_elem(&flows, &number);
}

/* What is known of a flow: its rule + 1, flags and counter slot; 0: nothing. */
static __always_inline __u64 find_flow(const struct flow *flow, bool is_short)
{
	__u64 *words = (__u64 *)flow_line(flow), value;

	if (!words)
		return 0;
	value = flow_at(flow, words, is_short);
	if (is_short && !value)
		value = flow_at(flow, words + SHORT_WORDS, true);
	return value;
}

static __always_inline void remember_flow(const struct flow *flow, __u64 value, bool is_short)
{
	__u64 *words = (__u64 *)flow_line(flow);

	if (!words)
		return;
	if (is_short) {
		/* The older of two goes. */
#pragma unroll
		for (int i = 0; i < SHORT_WORDS; i++)
			words[SHORT_WORDS + i] = words[i];
		words[1] = flow->rest;
		words[2] = value;
		words[3] = flow->check + value * MIX_2;
	} else {
		words[1] = flow->src.lo;
		words[2] = flow->dst.hi;
		words[3] = flow->dst.lo;
		words[4] = flow->rest;
		words[5] = flow->fields;
		words[6] = value;
		words[7] = flow->check + value * MIX_2;
	}
	words[0] = flow->src.hi;
}

#endif
