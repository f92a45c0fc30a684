/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counters of single entries of address sets. In each direction a packet counts once, for the most
 * specific entry of each set by which a rule matched it, however many rules that were.
 *
 * All CPUs share a counter and add to it in atomic steps: one for each CPU would take too much
 * memory for a set of a million entries.
 */
#ifndef XDPGATE_ENTRIES_H
#define XDPGATE_ENTRIES_H

/* Adds the sets that a rule counts by, given the first word of its record. */
static __always_inline void add_sets(struct passing *passing, __u32 flags)
{
	struct rule_extra *extra =
		(struct rule_extra *)image_line(shape.extras + (flags >> RULE_EXTRA));

	if (!(flags & RULE_ENTRIES) || !extra)
		return;
	passing->src_sets |= extra->src_sets;
	passing->dst_sets |= extra->dst_sets;
}

/* The record of the most specific entry that holds an address, or 0. A global function, as is the next:
 * verified once, and with little stack each. */
__noinline int find_entry(__u64 hi, __u64 lo, __u32 v6)
{
	if (!(shape.features & FEATURE_ENTRIES))
		return 0;
	return find_in_index(&shape.entries[0], &shape.entries[1], hi, lo, v6, unknown_zero());
}

/* Counts a packet in an entry, and in those around it, for the first of each of these sets. */
__noinline int count_entries(__u32 number, __u64 sets, __u32 bytes)
{
	__u64 ticks, zero = unknown_zero();

	/* Global functions are verified whether they are called or not. */
	if (!(shape.features & FEATURE_ENTRIES))
		return 0;
	ticks = bpf_jiffies64();
	for (int step = 0; step < ENTRY_STEPS; step++) {
		struct entry_record *record;
		struct line *line;

		if (step >= shape.entry_steps || !number || !sets)
			break;
		line = image_line(shape.entry_records + (number >> 2));
		if (!line)
			break;
		record = (struct entry_record *)line + (number & 3);
		if (sets >> (record->set & 63) & 1 && ticks < record->expires) {
			struct entry_counter *counter =
				bpf_map_lookup_elem(&entry_counters, &number);

			if (counter) {
				atomic_add(&counter->packets, 1);
				atomic_add(&counter->bytes, bytes);
			}
			sets &= ~(1ull << (record->set & 63));
		}
		number = record->around;
		forget(number);
		forget(sets);
	}
	return 0;
}

/* Counts a packet in the entries by which rules matched it. */
static __always_inline void count_packet_entries(const struct packet *packet, __u32 bytes,
						 const struct passing *passing)
{
	if (passing->src_sets)
		count_entries(find_entry(packet->src.hi, packet->src.lo, packet->v6),
			      passing->src_sets, bytes);
	if (passing->dst_sets)
		count_entries(find_entry(packet->dst.hi, packet->dst.lo, packet->v6),
			      passing->dst_sets, bytes);
}

#endif
