/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bridges: what passes goes to the partner of the port that it came in by, and never to the stack.
 */
#ifndef XDPGATE_FORWARD_H
#define XDPGATE_FORWARD_H

/* Where a frame goes that passes: from a port to its partner, from other interfaces to the stack.
 * XDP_DROP if the port has no partner now. Whether the partner's driver takes the frame is not known
 * before the program has ended: see docs/bridge.md. */
static __always_inline int pass_on(struct xdp_md *ctx, const struct interface_entry *entry)
{
	if (!(host.exit & EXIT_FORWARD) || !entry || !(entry->flags & INTERFACE_PORT))
		return XDP_PASS;
	return bpf_redirect_map(&ports, ctx->ingress_ifindex, XDP_DROP);
}

/* Whether all frames of an interface pass unjudged. */
static __always_inline bool is_unfiltered(const struct interface_entry *entry)
{
	return host.exit & EXIT_FORWARD && entry && entry->flags & INTERFACE_UNFILTERED;
}

#endif
