/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sampled drops, told to user space while somebody listens.
 *
 * A budget is kept as in GCRA (ITU-T I.371): the time at which it will be full again. It is charged
 * by a plain load and a plain store, so CPUs that charge it at the same moment may send one event
 * each where one was due; that lasts for some nanoseconds, and needs no atomic that 5.10 lacks.
 */
#ifndef XDPGATE_EVENTS_H
#define XDPGATE_EVENTS_H

#define SECOND_NS 1000000000ull

/* When a budget that is full at `full` will be full once one event more is taken from it. */
static __always_inline __u64 charged(__u64 full, __u64 now, __u32 interval)
{
	return (full > now ? full : now) + interval;
}

/* Copies up to EVENT_BYTES from the start of the frame; returns how many. No helper that copies
 * from a frame is in 5.10. The last 8 bytes are copied as such, over some that were copied before. */
static __always_inline __u32 capture(struct xdp_md *ctx, __u8 *to)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u64 size = bytes_between(data, end);
	__u64 last;

	if (host.frags && size < EVENT_BYTES) {
		__u64 all = frame_bytes(ctx);

		if (all > size) { /* the rest lies in other buffers */
			size = all < EVENT_BYTES ? all : EVENT_BYTES;
			/* One less is what is compared: no verifier before 6.8 learns from a
			 * comparison with 0 that it is 1 or more, as the helper wants it. */
			last = size - 1;
			asm volatile("" : "+r"(last)); /* as below */
			if (last >= EVENT_BYTES || bpf_xdp_load_bytes(ctx, 0, to, last + 1))
				return 0;
			return size;
		}
	}
	if (size < 8)
		return 0; /* does not happen: a frame has an Ethernet header */
	if (size > EVENT_BYTES)
		size = EVENT_BYTES;
#pragma unroll
	for (__u32 i = 0; i < EVENT_BYTES / 8; i++) {
		__u64 *from = (__u64 *)data + i;

		if ((void *)(from + 1) > end)
			break;
		((__u64 *)to)[i] = *from;
	}
	last = size - 8;
	asm volatile("" : "+r"(last)); /* keeps the bound with the value that is used */
	if (last > EVENT_BYTES - 8)
		return 0;
	data += last;
	if (data + 8 > end)
		return 0;
	*(__u64 *)(to + last) = *(__u64 *)data;
	return size;
}

/* Sends a dropped frame, or one that would have been, if the budgets of its rule (or reason) and of
 * the whole firewall have room. A global function: verified once, and only drops that somebody
 * listens for come here. */
__noinline int send_event(struct xdp_md *ctx, __u32 rule, __u32 counter_slot, __u32 reason,
			  __u32 disposition)
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 own_key = rule != NO_RULE ? counter_slot : host.rule_slots + reason;
	__u32 all_key = host.rule_slots + REASON_SLOTS;
	struct control *line = control_line();
	struct event_counter *counter = bpf_map_lookup_elem(&event_counters, &cpu);
	__u64 *own = bpf_map_lookup_elem(&event_budgets, &own_key);
	__u64 *all = bpf_map_lookup_elem(&event_budgets, &all_key);
	__u64 now = bpf_jiffies64() * host.tick_ns;
	__u64 own_full, all_full;
	struct event *event;

	if (!line || !counter || !own || !all)
		return 0;
	own_full = charged(*own, now, line->event_rule_ns);
	all_full = charged(*all, now, line->event_total_ns);
	if (own_full - now > SECOND_NS || all_full - now > SECOND_NS) {
		atomic_add(&counter->suppressed, 1);
		return 0;
	}
	*own = own_full;
	*all = all_full;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		atomic_add(&counter->lost, 1);
		return 0;
	}
	event->time = bpf_ktime_get_ns();
	event->generation = generation;
	event->ifindex = ctx->ingress_ifindex;
	event->queue = ctx->rx_queue_index;
	event->length = frame_bytes(ctx);
	event->rule = rule;
	event->reason = reason;
	event->disposition = disposition;
	event->reserved = 0;
	event->captured = capture(ctx, event->bytes);
	bpf_ringbuf_submit(event, 0);
	atomic_add(&counter->sent, 1);
	return 0;
}

#endif
