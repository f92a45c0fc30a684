/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bans: prefixes that are dropped for some time, whatever the rules say. They lie in one table that
 * all generations share, and user space writes it while packets are judged
 * (src/kernel/ban_table.rs).
 *
 * What holds for every packet, on x86-64 and arm64:
 * - A ban that is in force before the packet comes and not lifted while it is judged is found.
 * - An address that no ban covers while the packet is judged is never taken for a banned one, unless
 *   its place in the table is used anew 256 times during that packet.
 *
 * User space brings it about by the order of its stores, the program by the order of its loads:
 * - A place is used anew by: state = unused, key, hits, state = used with the next version. Whoever
 *   reads one version before and after the key has read the key of that version. Expiry alone
 *   changes in place, by one store to the state.
 * - A key lies in its home line or in one other. If it must move, it moves from home to other only:
 *   BAN_ELSEWHERE in the home line, the copy, then the original is cleared. Whoever reads the home
 *   line, then BAN_ELSEWHERE, then the other line, finds one of the two.
 */
#ifndef XDPGATE_BANS_H
#define XDPGATE_BANS_H

/* A pointer through which loads come after those that led to `before`: the address depends on them,
 * which arm64 keeps in order. BPF has no other ordered loads before 6.14. */
#define AFTER(pointer, before) ((void *)(pointer) + ((before) & zero & 8))

/* Hides from the compiler what it knows of a value, so that the dependency stays. */
#define HIDE(value) asm volatile("" : "+r"(value))

/* All ones if a place seems to hold a ban in force of this prefix, else 0. */
static __always_inline __u64 seems_banned(const volatile struct ban *ban, __u64 hi, __u64 lo,
					  __u64 what, __u64 now)
{
	__u64 state = ban->state;
	__u64 differs = (ban->hi ^ hi) | (ban->lo ^ lo) | ((state & BAN_WHAT) ^ what);
	__u64 holds = (__s64)(now - (state >> BAN_EXPIRES)) >> 63;

	return if_zero64(differs) & holds;
}

/* Likewise, but sure: 0 if state and key belong together and are these. */
static __always_inline __u64 differs_in_order(struct ban *ban, __u64 hi, __u64 lo, __u64 what,
					      __u64 seen, __u64 zero)
{
	__u64 before = ((const volatile struct ban *)AFTER(ban, seen))->state;
	const volatile struct ban *key = AFTER(ban, before);
	__u64 differs = (key->hi ^ hi) | (key->lo ^ lo) | ((before & BAN_WHAT) ^ what);
	__u64 after = ((const volatile struct ban *)AFTER(ban, differs))->state;

	return differs | ((before ^ after) & (BAN_WHAT | BAN_VERSION_MASK));
}

/* Whether there is a ban of this very prefix. A global function, as the next one: verified once,
 * and only packets that some ban may concern pay for the call. */
__noinline int find_ban(__u64 hi, __u64 lo, __u64 what)
{
	__u64 hash = hash16(host.seed, hi, lo, what, 0);
	__u64 zero = unknown_zero(), now = bpf_jiffies64();
	__u32 number = home_line(hash, host.ban_lines);

	for (__u64 choice = 0; choice < HOST_CHOICES; count_up(&choice)) {
		struct line *line = bpf_map_lookup_elem(&bans, &number);
		__u64 second, found, seen;
		struct ban *ban;

		if (!line)
			break;
		ban = (struct ban *)line;
		second = seems_banned(ban + 1, hi, lo, what, now);
		found = second | seems_banned(ban, hi, lo, what, now);
		seen = found;
		HIDE(seen);
		if (found) {
			ban = (void *)line + (second & sizeof(*ban));
			seen = differs_in_order(ban, hi, lo, what, seen, zero);
			if (!seen) {
				if (!host.evaluate)
					atomic_add(&ban->hits, 1);
				return 1;
			}
		}
		forget(seen); /* of which way it came */
		seen = ((const volatile struct ban *)AFTER(line, seen))->state;
		if (!(seen & BAN_ELSEWHERE))
			break;
		HIDE(seen);
		number = other_line(hash, host.ban_lines) + (seen & zero);
	}
	return 0;
}

/* Whether a prefix of one of these lengths is banned that an address lies in. */
__noinline int find_banned_prefix(__u64 hi, __u64 lo, __u64 lengths, __u32 kind)
{
	for (int i = 0; i < BAN_LENGTHS; i++) {
		__u64 host_bits, mask, words, low;

		if (!lengths)
			break;
		host_bits = (lengths & 0xff) - 1;
		words = host_bits >> 6;
		mask = ~0ull << (host_bits & 63);
		low = (__s64)(words - 1) >> 63; /* all ones: the mask is that of lo */
		HIDE(low);
		if (find_ban(hi & (mask | low) & ((words >> 1) - 1), lo & mask & low,
			     host_bits | kind << BAN_KIND | BAN_USED))
			return 1;
		lengths >>= 8;
	}
	return 0;
}

/* Most bans are of hosts, which come first among the lengths. */
static __always_inline int covered_by_ban(const struct address *address, __u64 lengths, __u32 kind)
{
	if ((lengths & 0xff) == 1) {
		if (find_ban(address->hi, address->lo, kind << BAN_KIND | BAN_USED))
			return 1;
		lengths >>= 8;
	}
	return lengths ? find_banned_prefix(address->hi, address->lo, lengths, kind) : 0;
}

static __always_inline bool is_banned(const struct packet *packet, const struct control *line,
				      __u64 zero)
{
	__u32 kind = packet->v6 << 1;
	__u64 src, dst, banned = 0;

	src = *(volatile __u64 *)&line->ban_lengths[kind & 2];
	dst = *(volatile __u64 *)&line->ban_lengths[(kind & 2) + 1];
	if (!(src | dst))
		return false;
	if (src)
		banned = covered_by_ban(&packet->src, src, kind);
	if (dst && !banned)
		banned = covered_by_ban(&packet->dst, dst, kind + 1);
	forget(banned);
	return banned;
}

#endif
