/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef XDPGATE_FAILSAFE_H
#define XDPGATE_FAILSAFE_H

static __always_inline bool is_dhcp4(__u32 port)
{
	return port == 67 || port == 68;
}

/* TCP of a peer that manages this host. Few are listed, and only packets to or from one of their
 * ports, or from one that shares its lowest bits, come here. A global function: verified once. */
__noinline int is_management(__u64 hi, __u64 lo, __u32 v6, __u32 ports)
{
	for (__u32 i = 0; i < MAX_MANAGEMENT; i++) {
		struct management *listed;

		if (i >= shape.management_count)
			break;
		listed = (struct management *)image_line(shape.management + i);
		if (!listed)
			break;
		if (v6 == listed->v6 && (hi & listed->mask_hi) == listed->hi &&
		    (lo & listed->mask_lo) == listed->lo &&
		    (ports & listed->port_mask) == listed->ports)
			return 1;
	}
	return 0;
}

/* Management traffic that passes before any rule: see xdpgate::policy::Failsafe. What is seldom
 * true comes first: ports, not the protocol. */
static __always_inline bool is_failsafe(const struct packet *packet)
{
	__u32 first = packet->first, second = packet->second;

	if (!packet->l4)
		return false;
	if (!packet->v6) {
		if (is_dhcp4(second) && is_dhcp4(first) && packet->protocol == IPPROTO_UDP)
			return true;
	} else {
		if ((second == 546 || second == 547) && packet->protocol == IPPROTO_UDP)
			return packet->src.hi >> 54 == 0xfe80 >> 6; /* fe80::/10 */
		if (first >> 8 >= 133 && first >> 8 <= 137 && packet->protocol == IPPROTO_ICMPV6)
			return packet->ttl == 255;
	}
	if (shape.features & FEATURE_MANAGEMENT &&
	    (shape.local_ports >> (second & 63) | shape.remote_ports >> (first & 63)) & 1 &&
	    packet->protocol == IPPROTO_TCP)
		return is_management(packet->src.hi, packet->src.lo, packet->v6, first | second << 16);
	return false;
}

#endif
