/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef XDPGATE_FAILSAFE_H
#define XDPGATE_FAILSAFE_H

#define SSH_PORT 22

static __always_inline bool is_dhcp4(__u32 port)
{
	return port == 67 || port == 68;
}

/* SSH from a configured prefix. Few prefixes, and only packets to port 22 come here. A global
 * function: verified once. */
__noinline int ssh_allowed(__u64 hi, __u64 lo, __u32 v6)
{
	for (__u32 i = 0; i < MAX_SSH_PREFIXES; i++) {
		struct line *line;
		__u64 *prefix;

		if (i >= shape.ssh_count)
			break;
		line = image_line(shape.ssh + (i >> 1));
		if (!line)
			break;
		prefix = (__u64 *)line->w + (i & 1) * 4;
		if (v6 == (i >= shape.ssh_v4_count) && (hi & prefix[2]) == prefix[0] && (lo & prefix[3]) == prefix[1])
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
	if (shape.features & FEATURE_SSH && second == SSH_PORT && packet->protocol == IPPROTO_TCP)
		return ssh_allowed(packet->src.hi, packet->src.lo, packet->v6);
	return false;
}

#endif
