/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rate limits: GCRA (ITU-T I.371). docs/data-plane.md, "Rate limits", says what is exact and why.
 *
 * A budget is full again at base + spent. Two words, because before Linux 5.12 the one atomic step
 * is to add without learning the sum:
 * - What a packet costs is added to `spent`, then the sum is looked at. If others added at the same
 *   time and it is too much now, the cost is taken back. So never more than the burst passes.
 * - A full budget earns nothing: base is stored anew, as now - spent. CPUs that do so at once store
 *   the same but for the time between them, and what others spend meanwhile stays spent.
 */
#ifndef XDPGATE_LIMIT_H
#define XDPGATE_LIMIT_H

/* Both clocks count from the same moment, so that limits by either may share rate_sources. */
static __always_inline __u64 limit_clock(const struct limit *limit)
{
	if (limit->flags & LIMIT_FINE)
		return bpf_ktime_get_ns() << LIMIT_TIME_SHIFT;
	return bpf_jiffies64() * ((__u64)host.tick_ns << LIMIT_TIME_SHIFT) + host.tick_zero;
}

/* Takes the cost out of the budget if it holds that much; out of a full one if it is `fresh`. The
 * evaluator only looks. */
static __always_inline bool spend(struct budget *budget, bool fresh, __u64 cost, __u64 depth,
				  __u64 now)
{
	/* First what was spent: a base that is older than that would count too little. */
	__u64 spent = READ_WORD(budget->spent);
	__u64 base = READ_WORD(budget->base);

	if (fresh || (__s64)(base + spent - now) < 0) {
		base = now - spent;
		if (!host.evaluate)
			WRITE_WORD(budget->base, base);
	}
	if (base + spent - now + cost > depth)
		return false;
	if (host.evaluate)
		return true;
	atomic_add(&budget->spent, cost);
	if ((__s64)(base + READ_WORD(budget->spent) - now) <= (__s64)depth)
		return true;
	atomic_add(&budget->spent, -cost);
	return false;
}

static __always_inline struct source_line *source_line(__u32 number)
{
	return bpf_map_lookup_elem(&rate_sources, &number);
}

/* The slot of a line with this tag, from 1 on; 0: none. */
static __always_inline __u32 tagged_slot(const struct source_line *line, __u32 tag)
{
	__u32 slot = 0;

#pragma unroll
	for (int i = SOURCE_SLOTS - 1; i >= 0; i--) {
		__u32 here = if_zero(READ_WORD(line->tags[i]) ^ tag);

		slot = (slot & ~here) | ((i + 1) & here);
	}
	return slot;
}

/* A slot of a line whose budget is full, from 1 on; 0: none. */
static __always_inline __u32 full_slot(const struct source_line *line, __u64 now)
{
	__u32 slot = 0;

#pragma unroll
	for (int i = SOURCE_SLOTS - 1; i >= 0; i--) {
		const struct budget *budget = &line->budgets[i];
		/* All ones if it is full. */
		__u32 here = (__s64)(READ_WORD(budget->base) + READ_WORD(budget->spent) - now - 1) >> 63;

		slot = (slot & ~here) | ((i + 1) & here);
	}
	return slot;
}

/*
 * The budget of a source: the one with its tag, or one that is full in either of its two lines,
 * because a full budget and none are the same. Both lines are asked for at once, so that their
 * cache misses overlap. NULL: both are full of others.
 *
 * A source may be new on several CPUs at once. Tags are written before budgets are spent, so they
 * are read again after the budgets were: either they name the place that another CPU has taken, or
 * nothing of it was spent yet and all choose the same.
 */
static __always_inline struct budget *find_source(const struct limit *limit, __u64 hi, __u64 lo,
						  __u32 v6, __u64 now, __u64 zero)
{
	__u64 hash, number;
	struct source_line *home, *other, *line;
	__u32 tag, found_home, found_other;
	__u64 found;
	bool claim;

	if (!v6)
		lo &= 0xffffffffull << (32 - limit->v4_length);
	else if (limit->v6_length <= 64)
		hi &= ~0ull << (64 - limit->v6_length), lo = 0;
	else
		lo &= ~0ull << (128 - limit->v6_length);
	hash = hash16(host.seed, hi, lo, v6, limit->id);
	forget(hash);
	tag = hash * MIX_1 >> 32;
	home = source_line(home_line(hash, host.source_lines));
	other = source_line(other_line(hash, host.source_lines));
	if (!home || !other)
		return NULL;

	found_home = tagged_slot(home, tag);
	found_other = tagged_slot(other, tag);
	claim = !(found_home | found_other);
	if (claim) {
		__u32 full_home = full_slot(home, now), full_other = full_slot(other, now);

		found_home = tagged_slot(home, tag);
		found_other = tagged_slot(other, tag);
		claim = !(found_home | found_other);
		if (claim)
			found_home = full_home, found_other = full_other;
	}
	found = found_home ? found_home : found_other;
	number = found_home ? home_line(hash, host.source_lines) :
			      other_line(hash, host.source_lines);
	forget(found);
	forget(number);
	if (!found)
		return NULL;
	line = source_line(number);
	if (!line)
		return NULL;
	if (claim && !host.evaluate)
		WRITE_WORD(line->tags[(found - 1) & SOURCE_SLOTS], tag);
	return (struct budget *)line + (found & SOURCE_SLOTS);
}

/* The budget that a rule keeps in its slot. It is fresh if it was spent by another limit, before the
 * rule was changed: a small one could wait long for what a large one allowed. */
static __always_inline struct budget *slot_budget(const struct limit *limit, __u32 slot,
						  bool *fresh)
{
	struct rate_budget *rate = bpf_map_lookup_elem(&rate_budgets, &slot);

	if (!rate)
		return NULL;
	*fresh = rate->limit != limit->id;
	if (*fresh && !host.evaluate)
		WRITE_WORD(rate->limit, limit->id);
	return &rate->budget;
}

static __always_inline void count_overflow(__u32 slot)
{
	__u32 key = bpf_get_smp_processor_id() * host.rule_slots + slot;
	__u64 *overflow = bpf_map_lookup_elem(&rate_overflows, &key);

	if (overflow && !host.evaluate)
		atomic_add(overflow, 1);
}

/*
 * Whether a packet from this source is over the limit of its rule, given as the two words of its
 * record; spends its cost if it is not. Sources without a place of their own share a budget of the
 * same size: never is a source without limit, and never does it take the place of another that is
 * using it.
 */
static __always_inline bool over_limit(__u32 bytes, __u64 hi, __u64 lo, __u32 v6, __u32 flags,
				       __u32 slot, __u64 zero)
{
	struct line *line = image_line(shape.extras + (flags >> RULE_EXTRA));
	struct budget *budget = NULL;
	const struct limit *limit;
	__u64 cost, now;
	bool fresh = false;

	if (!line)
		return false;
	limit = &((struct rule_extra *)line)->limit;
	now = limit_clock(limit);
	cost = limit->cost;
	if (limit->flags & LIMIT_BITS)
		cost = cost * bytes >> limit->cost_shift;
	forget(now);
	forget(cost);
	if (shape.features & FEATURE_LIMIT_SOURCE && limit->flags & LIMIT_SOURCE) {
		budget = find_source(limit, hi, lo, v6, now, zero);
		if (!budget)
			count_overflow(slot);
	}
	if (!budget)
		budget = slot_budget(limit, slot, &fresh);
	return budget && !spend(budget, fresh, cost, limit->depth, now);
}

#endif
