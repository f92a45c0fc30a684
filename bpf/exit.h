/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How the programs end: every frame ends in exactly one verdict counter.
 *
 * What is not the plain case is behind host.exit, which is asked once: a program that serves no
 * bridges and counts without atomics has not one instruction for them.
 */
#ifndef XDPGATE_EXIT_H
#define XDPGATE_EXIT_H

struct decision {
	enum reason reason;
	bool drop;
	__u32 rule; /* number, or NO_RULE */
};

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

/* Lets a frame pass that no policy judged. */
static __always_inline int pass_unjudged(struct xdp_md *ctx, const struct control *line,
					 const struct interface_entry *entry, enum reason reason)
{
	enum disposition disposition = DISPOSITION_PASS;
	int action = pass_on(ctx, entry);

	if (action == XDP_DROP) {
		reason = REASON_NO_PARTNER;
		disposition = DISPOSITION_DROP;
	}
	add_verdict(bpf_get_smp_processor_id(), entry ? entry->slot : 0, read_bank(line),
		    frame_bytes(ctx), reason, disposition, host.exit & EXIT_ATOMIC);
	return action;
}

/* What becomes of a frame that is to be dropped. */
static __always_inline enum disposition dropped(const struct control *line,
						const struct interface_entry *entry)
{
	if (line->dry_run || (entry && entry->flags & INTERFACE_DRY_RUN))
		return DISPOSITION_WOULD_DROP;
	return DISPOSITION_DROP;
}

/* The exit of a program that serves bridges or counts in atomic steps. A frame for which there is no
 * partner is dropped for that reason, and not counted by the rule that let it pass. */
static __always_inline int finish_special(struct xdp_md *ctx, const struct control *line,
					  __u32 bytes, const struct decision *decision,
					  __u32 counter_slot, __u32 bank)
{
	struct interface_entry *entry = find_interface(ctx->ingress_ifindex);
	enum disposition disposition = DISPOSITION_PASS;
	__u32 cpu = bpf_get_smp_processor_id();
	enum reason reason = decision->reason;
	__u32 rule = decision->rule;
	int action = XDP_DROP;

	if (decision->drop)
		disposition = dropped(line, entry);
	if (disposition != DISPOSITION_DROP) {
		action = pass_on(ctx, entry);
		if (action == XDP_DROP) {
			disposition = DISPOSITION_DROP;
			reason = REASON_NO_PARTNER;
			rule = NO_RULE;
		}
	}
	if (rule != NO_RULE)
		count_rule(rule_region(cpu, bank), bytes, counter_slot, disposition,
			   host.exit & EXIT_ATOMIC);
	add_verdict(cpu, entry ? entry->slot : 0, bank, bytes, reason, disposition,
		    host.exit & EXIT_ATOMIC);
	if (disposition != DISPOSITION_PASS && line->events)
		send_event(ctx, rule, counter_slot, reason, disposition);
	return action;
}

/* The one exit of the program that judges. */
static __always_inline int finish(struct xdp_md *ctx, const struct control *line, __u32 bytes,
				  const struct decision *decision, __u32 counter_slot,
				  __u32 passed, __u32 bank)
{
	__u32 cpu = bpf_get_smp_processor_id();
	enum disposition disposition = DISPOSITION_PASS;
	struct interface_entry *entry;

	if (host.exit) {
		if (host.exit & EXIT_REPORT)
			return report(decision, passed);
		return finish_special(ctx, line, bytes, decision, counter_slot, bank);
	}
	entry = find_interface(ctx->ingress_ifindex);
	if (decision->drop)
		disposition = dropped(line, entry);
	if (decision->rule != NO_RULE)
		count_rule(rule_region(cpu, bank), bytes, counter_slot, disposition, false);
	add_verdict(cpu, entry ? entry->slot : 0, bank, bytes, decision->reason, disposition,
		    false);
	if (disposition != DISPOSITION_PASS && line->events)
		send_event(ctx, decision->rule, counter_slot, decision->reason, disposition);
	return disposition == DISPOSITION_DROP ? XDP_DROP : XDP_PASS;
}

#endif
