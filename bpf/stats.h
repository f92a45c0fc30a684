/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counting. Each CPU writes its own region, without atomics: XDP runs with softirqs off, so
 * nothing on this CPU comes between load and store.
 *
 * There are two banks of all counters. A packet counts in the one that the control line named when
 * it came in, and in no other: so a bank from which user space switched away holds whole packets
 * only, once those that were on their way have ended (src/kernel/snapshot.rs).
 */
#ifndef XDPGATE_STATS_H
#define XDPGATE_STATS_H

struct decision {
	enum reason reason;
	bool drop;
	__u32 rule; /* number, or NO_RULE */
};

/* The counter slot of an interface; 0 for one that is not listed. A free entry ends the search, so
 * user space leaves INTERFACE_GONE where it takes one out. */
static __always_inline __u32 interface_slot(__u32 ifindex)
{
	for (__u32 hop = 0; hop < INTERFACE_HOPS; hop++) {
		__u32 key = (ifindex + hop) & (INTERFACE_ENTRIES - 1);
		struct interface_entry *entry = bpf_map_lookup_elem(&interfaces, &key);

		if (!entry || !entry->ifindex)
			break;
		if (entry->ifindex == ifindex)
			return entry->slot;
	}
	return 0;
}

/* The interface scopes that a frame came in by. */
static __always_inline __u64 interface_scopes(struct xdp_md *ctx)
{
	__u32 slot = host.interface_slots;
	__u64 *bits;

	if (!host.evaluate)
		slot = interface_slot(ctx->ingress_ifindex);
	bits = bpf_map_lookup_elem(&scopes, &slot);
	return bits ? *bits : 0;
}

static __always_inline void count_verdict(struct xdp_md *ctx, __u32 cpu, __u32 bank, __u32 bytes,
					  enum reason reason, enum disposition disposition)
{
	__u32 slot = cpu * host.interface_slots + interface_slot(ctx->ingress_ifindex);
	__u32 key = (slot * REASON_SLOTS + reason) * DISPOSITION_SLOTS + disposition;
	struct verdict_counter *counter;

	key = key * BANKS + bank;
	counter = bpf_map_lookup_elem(&verdict_counters, &key);
	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

/* The bank in which a packet counts that comes in now. */
static __always_inline __u32 read_bank(const struct control *line)
{
	return *(const volatile __u32 *)&line->bank;
}

/* Where the counters of all rules begin, for one CPU and bank. */
static __always_inline __u32 rule_region(__u32 cpu, __u32 bank)
{
	return cpu * host.rule_slots * BANKS + bank;
}

static __always_inline void count_rule(__u32 region, __u32 bytes, __u32 slot,
				       enum disposition disposition)
{
	__u32 key = region + slot * BANKS;
	struct rule_counter *counter = bpf_map_lookup_elem(&rule_counters, &key);

	if (!counter)
		return;
	counter->packets++;
	counter->bytes += bytes;
	if (disposition == DISPOSITION_DROP)
		counter->dropped_packets++;
	else if (disposition == DISPOSITION_WOULD_DROP)
		counter->would_drop_packets++;
}

/* Rules that are passed by on the way: each only counts. */
struct passing {
	__u32 region;
	__u32 bytes;
	__u32 count;
	__u64 src_sets, dst_sets; /* bits of the sets whose entries are counted, of all rules so far */
};

/* `drop`: the rule would have dropped it, were it not in monitor mode. */
static __always_inline void pass_by(__u32 region, __u32 bytes, __u32 rule,
				    __u32 counter_slot, __u32 passed, bool drop)
{
	__u64 place = passed;
	__u32 zero = 0;
	struct evaluation *answer;

	if (!host.evaluate) {
		count_rule(region, bytes, counter_slot,
			   drop ? DISPOSITION_WOULD_DROP : DISPOSITION_PASS);
		return;
	}
	answer = bpf_map_lookup_elem(&evaluation, &zero);
	/* Else clang 14 to 16 ask whether the bits above are 0, from which the verifier learns nothing. */
	asm volatile("" : "+r"(place));
	if (answer && place < MAX_WALK)
		answer->passed[place] = rule;
}

/* Tells the evaluator instead of counting. */
static __always_inline int report(const struct decision *decision, __u32 passed)
{
	__u32 zero = 0;
	struct evaluation *answer = bpf_map_lookup_elem(&evaluation, &zero);

	if (answer) {
		answer->reason = decision->reason;
		answer->drop = decision->drop;
		answer->rule = decision->rule;
		answer->passed_count = passed;
	}
	return decision->drop ? XDP_DROP : XDP_PASS;
}

/* The one exit: every frame ends in exactly one verdict counter. */
static __always_inline int finish(struct xdp_md *ctx, const struct control *line, __u32 bytes,
				  const struct decision *decision, __u32 counter_slot,
				  __u32 passed, __u32 bank)
{
	__u32 cpu = bpf_get_smp_processor_id();
	enum disposition disposition = DISPOSITION_PASS;

	if (host.evaluate)
		return report(decision, passed);
	if (decision->drop)
		disposition = line->dry_run ? DISPOSITION_WOULD_DROP : DISPOSITION_DROP;
	if (decision->rule != NO_RULE)
		count_rule(rule_region(cpu, bank), bytes, counter_slot, disposition);
	count_verdict(ctx, cpu, bank, bytes, decision->reason, disposition);
	if (disposition != DISPOSITION_PASS && line->events)
		send_event(ctx, decision->rule, counter_slot, decision->reason, disposition);
	return disposition == DISPOSITION_DROP ? XDP_DROP : XDP_PASS;
}

#endif
