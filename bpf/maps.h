/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef XDPGATE_MAPS_H
#define XDPGATE_MAPS_H

struct line {
	__u32 w[LINE_BYTES / 4];
} __attribute__((aligned(8)));

/* Counters per CPU are arrays indexed by CPU, not per-CPU maps: user space reads them without a
 * system call, and before 6.10 a per-CPU lookup is a call (kernel/bpf/arraymap.c). */
#define MMAPABLE_ARRAY(name, entries, value_type)                                                  \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__uint(max_entries, entries);                                                      \
		__type(key, __u32);                                                                \
		__type(value, value_type);                                                         \
	} name SEC(".maps")

/* The policy image of this generation. Sized at load. */
MMAPABLE_ARRAY(image, 1, struct line);

/* Of this generation, by interface slot: bits of the interface scopes. Behind the last slot those of
 * the frame that is evaluated. */
MMAPABLE_ARRAY(scopes, 1, __u64);

/* Of this generation, by entry record. Sized at load. */
MMAPABLE_ARRAY(entry_counters, 1, struct entry_counter);

/* One line that user space may change at any time: dry run, which counters count, the kinds of bans,
 * events. */
MMAPABLE_ARRAY(control, 1, struct control);

/* The bans, written by user space at any time. Sized at load. */
MMAPABLE_ARRAY(bans, 1, struct line);

/* ifindex -> counter slot, open addressing from ifindex % INTERFACE_ENTRIES. */
MMAPABLE_ARRAY(interfaces, INTERFACE_ENTRIES, struct interface_entry);

/* [cpu][interface slot][reason][disposition][bank]. Sized at load. */
MMAPABLE_ARRAY(verdict_counters, 1, struct verdict_counter);

/* [cpu][rule slot][bank]. Sized at load. */
MMAPABLE_ARRAY(rule_counters, 1, struct rule_counter);

/* [rule slot]. Sized at load. */
MMAPABLE_ARRAY(rate_budgets, 1, struct rate_budget);

/* Budgets of sources, by hash. Sized at load. mmapable for the sake of its alignment. */
MMAPABLE_ARRAY(rate_sources, 1, struct source_line);

/* Rules that were found for flows, by hash. Sized at load. */
MMAPABLE_ARRAY(flows, 1, struct line);

/* [cpu][rule slot]: packets of sources that found no place in rate_sources. Sized at load. */
MMAPABLE_ARRAY(rate_overflows, 1, __u64);
/* Sampled drops, for user space to read. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* When the budget is full again: [rule slot], then [reason], then all. Sized at load. */
MMAPABLE_ARRAY(event_budgets, 1, __u64);

/* [cpu]. Sized at load. */
MMAPABLE_ARRAY(event_counters, 1, struct event_counter);

/* Where the evaluating program leaves its answer. */
MMAPABLE_ARRAY(evaluation, 1, struct evaluation);

/* The one switch: the program that judges, with its own image. Every attachment and every
 * interface goes through it, so that one update changes all of them at once. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} policy_slot SEC(".maps");

/* ifindex of a port -> that of its partner. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} ports SEC(".maps");

/* Set before load: the verifier knows these values and removes the branches that they rule out. */
const volatile struct shape shape = {};
const volatile struct host_shape host = {};
const volatile __u64 generation = 0; /* of the policy */

#endif
