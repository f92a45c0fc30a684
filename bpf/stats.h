/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counting. Each CPU writes its own region, without atomics: XDP runs with softirqs off, so
 * nothing on this CPU comes between load and store. Where the kernel does not promise that
 * (EXIT_ATOMIC) they are added to in atomic steps; `atomic` is known when the program is verified.
 *
 * There are two banks of all counters. A packet counts in the one that the control line named when
 * it came in, and in no other: so a bank from which user space switched away holds whole packets
 * only, once those that were on their way have ended (src/kernel/snapshot.rs).
 */
#ifndef XDPGATE_STATS_H
#define XDPGATE_STATS_H

/* The entry of an interface; NULL if it is not listed. A free entry ends the search, so user space
 * leaves INTERFACE_GONE where it takes one out. */
static __always_inline struct interface_entry *find_interface(__u32 ifindex)
{
	for (__u32 hop = 0; hop < INTERFACE_HOPS; hop++) {
		__u32 key = (ifindex + hop) & (INTERFACE_ENTRIES - 1);
		struct interface_entry *entry = bpf_map_lookup_elem(&interfaces, &key);

		if (!entry || !entry->ifindex)
			break;
		if (entry->ifindex == ifindex)
			return entry;
	}
	return NULL;
}

/* The counter slot of an interface; 0 for one that is not listed. */
static __always_inline __u32 interface_slot(__u32 ifindex)
{
	struct interface_entry *entry = find_interface(ifindex);

	return entry ? entry->slot : 0;
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

static __always_inline void add_verdict(__u32 cpu, __u32 interface, __u32 bank, __u32 bytes,
					enum reason reason, enum disposition disposition,
					bool atomic)
{
	__u32 slot = cpu * host.interface_slots + interface;
	__u32 key = (slot * REASON_SLOTS + reason) * DISPOSITION_SLOTS + disposition;
	struct verdict_counter *counter;

	key = key * BANKS + bank;
	counter = bpf_map_lookup_elem(&verdict_counters, &key);
	if (!counter)
		return;
	if (atomic) {
		atomic_add(&counter->packets, 1);
		atomic_add(&counter->bytes, bytes);
	} else {
		counter->packets++;
		counter->bytes += bytes;
	}
}

static __always_inline void count_verdict(struct xdp_md *ctx, __u32 cpu, __u32 bank, __u32 bytes,
					  enum reason reason, enum disposition disposition)
{
	add_verdict(cpu, interface_slot(ctx->ingress_ifindex), bank, bytes, reason, disposition,
		    false);
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
				       enum disposition disposition, bool atomic)
{
	__u32 key = region + slot * BANKS;
	struct rule_counter *counter = bpf_map_lookup_elem(&rule_counters, &key);

	if (!counter)
		return;
	if (atomic) {
		atomic_add(&counter->packets, 1);
		atomic_add(&counter->bytes, bytes);
		if (disposition == DISPOSITION_DROP)
			atomic_add(&counter->dropped_packets, 1);
		else if (disposition == DISPOSITION_WOULD_DROP)
			atomic_add(&counter->would_drop_packets, 1);
		return;
	}
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
	enum disposition disposition = drop ? DISPOSITION_WOULD_DROP : DISPOSITION_PASS;

	if (!host.exit) {
		count_rule(region, bytes, counter_slot, disposition, false);
		return;
	}
	if (!host.evaluate) {
		count_rule(region, bytes, counter_slot, disposition, host.exit & EXIT_ATOMIC);
		return;
	}
	answer = bpf_map_lookup_elem(&evaluation, &zero);
	/* Else clang 14 to 16 ask whether the bits above are 0, from which the verifier learns nothing. */
	asm volatile("" : "+r"(place));
	if (answer && place < MAX_WALK)
		answer->passed[place] = rule;
}

#endif
