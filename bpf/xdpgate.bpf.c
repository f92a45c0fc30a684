// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The pipeline: parse -> failsafe -> bans -> classify -> count.
 *
 * Two programs. `xdpgate` is what interfaces run; it only jumps to the program in policy_slot. Where
 * host.exit asks for more, `xdpgate_special` takes its place.
 * `xdpgate_policy` judges: one instance per generation of the policy, specialised for its shape
 * and bound to its own image. Replacing the one slot switches all interfaces at once; a packet
 * stays with the instance it entered, so it is judged by the old policy or by the new one.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Two words of a line are looked at as one of 64 bits (lookup.h), and user space builds them so. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "only little-endian machines are supported");

#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "parsing.h"
#include "lookup.h"
#include "failsafe.h"
#include "bans.h"
#include "events.h"
#include "stats.h"
#include "forward.h"
#include "limit.h"
#include "entries.h"
#include "rules.h"
#include "flows.h"
#include "exit.h"

/* Says what time it is in ticks: user space cannot see them, and expiry is measured in them. */
SEC("xdp")
int xdpgate_clock(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct evaluation *answer = bpf_map_lookup_elem(&evaluation, &zero);

	if (answer) {
		answer->ticks = bpf_jiffies64();
		answer->nanoseconds = bpf_ktime_get_ns();
	}
	return XDP_PASS;
}

SEC("xdp")
int xdpgate(struct xdp_md *ctx)
{
	struct control *line;

	bpf_tail_call(ctx, &policy_slot, 0);
	/* Nothing published yet. */
	line = control_line();
	if (line)
		count_verdict(ctx, bpf_get_smp_processor_id(), read_bank(line), frame_bytes(ctx),
			      REASON_NO_POLICY, DISPOSITION_PASS);
	return XDP_PASS;
}

/* The same where there are bridges, or counters are added to in atomic steps. */
SEC("xdp")
int xdpgate_special(struct xdp_md *ctx)
{
	struct interface_entry *entry = find_interface(ctx->ingress_ifindex);
	struct control *line = control_line();

	if (!line)
		return pass_on(ctx, entry); /* an array has its one element */
	if (is_unfiltered(entry))
		return pass_unjudged(ctx, line, entry, REASON_UNFILTERED);
	bpf_tail_call(ctx, &policy_slot, 0);
	return pass_unjudged(ctx, line, entry, REASON_NO_POLICY);
}

/*
 * The rule that decides, as with_record() has it, where there may be more than ONLY_SIMPLE_RULES.
 * Those that the packet passes by count on the way.
 */
static __always_inline __u64 classify(struct xdp_md *ctx, const struct packet *packet, __u32 bytes,
				      __u32 bank, __u32 *passed, __u64 zero)
{
	struct passing passing = {};
	struct around around = {};
	struct flow flow = {};
	__u64 known = 0;
	__u32 *record;

	if (shape.features & (FEATURE_TIMED | FEATURE_CONDITIONS))
		around.ticks = bpf_jiffies64();
	if (shape.features & FEATURE_SCOPES) {
		around.scopes = interface_scopes(ctx);
		forget(around.scopes);
	}
	if (shape.features & FEATURE_WALK) {
		passing.region = rule_region(bpf_get_smp_processor_id(), bank);
		passing.bytes = bytes;
	}
	if (REMEMBERS_FLOWS) {
		new_flow(&flow, packet, &around, zero);
		known = find_flow(&flow, IS_SHORT(packet));
		forget(known);
	}
	if (!known) {
		known = with_record(find_rule(packet, &around, &passing, zero));
		if (REMEMBERS_FLOWS)
			remember_flow(&flow, known, IS_SHORT(packet));
	}
	if (shape.features & FEATURE_ENTRIES && !host.evaluate) {
		record = FLOW_FLAGS(known) & RULE_ENTRIES ? rule_record(FLOW_RULE(known) - 1) :
							    NULL;
		if (record)
			add_sets(&passing, *record);
		forget(passing.src_sets);
		forget(passing.dst_sets);
		count_packet_entries(packet, bytes, &passing);
	}
	*passed = passing.count;
	return known;
}

SEC("xdp")
int xdpgate_policy(struct xdp_md *ctx)
{
	struct decision decision = { .rule = NO_RULE };
	__u32 bank, bytes = frame_bytes(ctx);
	struct control *line = control_line();
	__u32 counter_slot = 0, passed = 0;
	struct packet packet;
	__u64 zero, known;
	__u32 *record;

	if (!line) /* an array has its one element */
		return host.exit ? pass_on(ctx, find_interface(ctx->ingress_ifindex)) : XDP_PASS;
	zero = read_zero(line);
	bank = read_bank(line);
	new_packet(&packet);
	switch (parse(ctx, &packet, bytes)) {
	case PARSED_NON_IP:
		decision.reason = REASON_NON_IP;
		goto count;
	case PARSED_VLAN_DEPTH:
		decision.reason = REASON_VLAN_DEPTH;
		goto malformed;
	case PARSED_MALFORMED:
		decision.reason = REASON_MALFORMED;
		goto malformed;
	default:
		break;
	}
	if (shape.features & FEATURE_FAILSAFE && is_failsafe(&packet)) {
		decision.reason = REASON_FAILSAFE;
		goto count;
	}
	if (host.ban_lines && is_banned(&packet, line, zero)) {
		decision.reason = REASON_BAN;
		decision.drop = true;
		goto count;
	}
	if (HAS_RULES) {
		forget_packet(&packet, zero);
		if (ONLY_SIMPLE_RULES)
			known = with_record(find_simple_rule(&packet, zero));
		else
			known = classify(ctx, &packet, bytes, bank, &passed, zero);
		decision.rule = FLOW_RULE(known) - 1;
		forget(decision.rule);
		if (decision.rule != NO_RULE) {
			decision.reason = REASON_RULE;
			decision.drop = FLOW_FLAGS(known) & RULE_DROP;
			counter_slot = FLOW_COUNTER(known);
			if (shape.features & FEATURE_LIMIT && FLOW_FLAGS(known) & RULE_LIMIT) {
				record = rule_record(decision.rule);
				if (record && over_limit(bytes, packet.src.hi, packet.src.lo, packet.v6,
							 record[0], counter_slot, zero)) {
					decision.drop = true;
					decision.reason = REASON_RATE_LIMIT;
				}
			}
			goto count;
		}
	}
	if (packet.malformed) {
		decision.reason = REASON_MALFORMED;
		goto malformed;
	}
	decision.reason = REASON_DEFAULT;
	decision.drop = shape.features & FEATURE_DEFAULT_DROP;
	goto count;
malformed:
	decision.drop = shape.features & FEATURE_MALFORMED_DROP;
count:
	return finish(ctx, line, bytes, &decision, counter_slot, passed, bank);
}

char _license[] SEC("license") = "Dual BSD/GPL";
