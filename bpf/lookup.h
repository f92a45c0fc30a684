/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lookups in the policy image. src/image/reader.rs mirrors this file line by line.
 *
 * The cost is the number of cold cache lines: a host is found in the one line that its hash names,
 * seldom in a following one.
 */
#ifndef XDPGATE_LOOKUP_H
#define XDPGATE_LOOKUP_H

/*
 * Makes the verifier forget what it knows of a value, at the cost of one instruction. Without it
 * every way through the parser (this protocol, no port, ...) would be followed through all of the
 * classification again. `zero` is 0, read from a map that user space could write to.
 */
#define forget(value)                                                                              \
	do {                                                                                       \
		__u64 forgotten = (value);                                                         \
		/* volatile: else clang moves it to where the value is used */                     \
		asm volatile("%0 ^= %1" : "+r"(forgotten) : "r"(zero));                            \
		(value) = forgotten;                                                               \
	} while (0)

#define READ_WORD(word) (*(volatile typeof(word) *)&(word))
#define WRITE_WORD(word, value) (*(volatile typeof(word) *)&(word) = (value))

/* Written out, because newer compilers may choose an instruction that 5.10 refuses. */
static __always_inline void atomic_add(__u64 *word, __u64 value)
{
	asm volatile("lock *(u64 *)(%0 + 0) += %1" : : "r"(word), "r"(value) : "memory");
}

/* counter++, hidden from the compiler: it would count by another value that runs along, one whose
 * end the verifier does not know (clang 14 does so). */
static __always_inline void count_up(__u64 *counter)
{
	__u64 value = *counter;

	asm volatile("%0 += 1" : "+r"(value));
	*counter = value;
}

static __always_inline struct control *control_line(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&control, &key);
}

/* A 0 that the verifier cannot know: see forget(). */
static __always_inline __u64 read_zero(const struct control *line)
{
	return *(const volatile __u64 *)&line->zero;
}

/* The same for functions that have no line yet. */
static __always_inline __u64 unknown_zero(void)
{
	struct control *line = control_line();

	return line ? read_zero(line) : 0;
}

static __always_inline struct line *image_line(__u32 number)
{
	return bpf_map_lookup_elem(&image, &number);
}

/* What is not in a frame but has a say. */
struct around {
	__u64 ticks; /* jiffies64 */
	__u64 scopes; /* the interface scopes that the frame came in by */
};

/* Forgets what the parser's ways said of the fields that the lookups of this policy read. */
static __always_inline void forget_packet(struct packet *packet, __u64 zero)
{
	if (shape.features & (FEATURE_SRC | FEATURE_EXACT | FEATURE_LIMIT_SOURCE)) {
		forget(packet->src.hi);
		forget(packet->src.lo);
	}
	if (shape.features & (FEATURE_DST | FEATURE_EXACT)) {
		forget(packet->dst.hi);
		forget(packet->dst.lo);
	}
	if (shape.features & (FEATURE_ROWS | FEATURE_PAIRS | FEATURE_EXACT)) {
		forget(packet->v6);
		forget(packet->protocol);
		forget(packet->l4);
		forget(packet->first);
		forget(packet->second);
	}
	if (WANT_FIELDS) {
		forget(packet->tcp_flags);
		forget(packet->length);
		forget(packet->state);
		forget(packet->vlan);
		forget(packet->ttl);
		forget(packet->dscp);
	}
	forget(packet->malformed);
}

/* Murmur3's 64-bit finalizer constants. */
#define MIX_1 0xff51afd7ed558ccdull
#define MIX_2 0xc4ceb9fe1a85ec53ull

/* A bijection for each seed: no two addresses have the same hash. */
static __always_inline __u64 hash4(__u32 address)
{
	__u64 h = (address ^ shape.seed[0]) * MIX_1;

	h = (h ^ h >> 32 ^ shape.seed[1]) * MIX_2;
	return h ^ h >> 29;
}

/* NH over four 32-bit words (UMAC: Black et al., CRYPTO 1999), keyed by the whole seed: two keys
 * chosen without knowing it collide with a probability of 2^-32. Then a finalizer, which spreads
 * the bits over both halves, and takes in two numbers more. */
static __always_inline __u64 hash16(const volatile __u64 *seed, __u64 hi, __u64 lo, __u32 kind,
				    __u64 more)
{
	__u64 a = (__u32)((hi >> 32) + (seed[0] >> 32));
	__u64 b = (__u32)(hi + seed[0]);
	__u64 c = (__u32)((lo >> 32) + (seed[1] >> 32));
	__u64 d = (__u32)(lo + seed[1]);
	__u64 h = a * b + c * d;

	h = (h ^ h >> 32 ^ kind) * MIX_1;
	h = (h ^ h >> 29 ^ more) * MIX_2;
	return h ^ h >> 32;
}

static __always_inline __u64 hash6(__u64 hi, __u64 lo, __u32 length)
{
	return hash16(shape.seed, hi, lo, length, 0);
}

/* The home line of a key by the high half of its hash, the other line by the low half: a half is
 * mapped onto [0, lines) without a division. */
static __always_inline __u32 home_line(__u64 hash, __u32 lines)
{
	return (hash >> 32) * lines >> 32;
}

static __always_inline __u32 other_line(__u64 hash, __u32 lines)
{
	return (hash & 0xffffffff) * lines >> 32;
}

/* All ones if the word is 0, else 0. Without a branch: which slot holds a key cannot be predicted,
 * and every branch doubles the ways for the verifier. */
static __always_inline __u32 if_zero(__u32 word)
{
	__u64 mask = (__s64)((__u64)word - 1) >> 63;

	asm volatile("" : "+r"(mask));
	return mask;
}

static __always_inline __u32 if_zero64(__u64 word)
{
	return if_zero(word | word >> 32);
}

/*
 * A line of IPv4 hosts: a word of overflow marks, then seven slots {address, outcome}. The mark
 * hash % 64 says that some key with that mark lies, or lay, in its other line (cuckoo hashing with
 * buckets: Erlingsson, Manasse, McSherry 2006), so that most misses touch one line. 0: not there. An
 * empty slot is all 0, so finding it for address 0 finds nothing.
 */
static __always_inline __u32 find_host4(const volatile struct address_index *index, __u32 address)
{
	__u64 hash = hash4(address);
	__u64 mark = 1ull << (hash & 63);
	__u32 number = index->hosts + home_line(hash, index->host_lines);
	__u32 found = 0;

	for (__u64 choice = 0; choice < HOST_CHOICES; count_up(&choice)) {
		struct line *line = image_line(number);

		if (!line)
			break;
#pragma unroll
		for (int i = 2; i < 2 + 2 * HOST4_SLOTS; i += 2)
			found |= line->w[i + 1] & if_zero(line->w[i] ^ address);
		if (found | if_zero64(*(__u64 *)line->w & mark))
			break;
		number = index->hosts + other_line(hash, index->host_lines);
	}
	return found;
}

/*
 * A line of 16-byte keys: IPv6 hosts, prefixes, five-tuples, pairs. 32 overflow marks, three values,
 * three keys. A value has the length of the key above it: that of a prefix, or what kind of key it is;
 * 0 for an empty slot, whose key is 0 as well. With branches, which other than in a line of seven are
 * learnt well: a third less for a search over prefix lengths.
 */
static __always_inline __u32 find_key(__u32 first, __u32 lines, __u64 hi, __u64 lo, __u32 length)
{
	__u64 hash = hash6(hi, lo, length);
	__u32 mark = 1u << (hash & 31);
	__u32 number = first + home_line(hash, lines);

	for (__u64 choice = 0; choice < HOST_CHOICES; count_up(&choice)) {
		struct line *line = image_line(number);
		__u64 *key;

		if (!line)
			break;
		key = (__u64 *)(line->w + 4);
#pragma unroll
		for (int i = 0; i < HOST6_SLOTS; i++) {
			__u32 value;

			if (key[2 * i] != hi || key[2 * i + 1] != lo)
				continue;
			value = line->w[1 + i];
			if (value && value >> OUTCOME_BITS == length)
				return value;
		}
		if (!(line->w[0] & mark))
			break;
		number = first + other_line(hash, lines);
	}
	return 0;
}

/* How many bits are set: in parallel, as in Hacker's Delight; BPF has no such instruction. */
static __always_inline __u64 count_bits(__u64 word)
{
	word -= word >> 1 & 0x5555555555555555ull;
	word = (word & 0x3333333333333333ull) + (word >> 2 & 0x3333333333333333ull);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0full;
	return word * 0x0101010101010101ull >> 56;
}

/* The entry of a trie block, which entry leads to, at a position of 8 bits. */
static __always_inline __u32 block_entry(const volatile struct address_index *index, __u32 entry,
					 __u32 position, __u64 zero)
{
	__u32 first = index->blocks + (entry & ~(ENTRY_BLOCK | ENTRY_PACKED));
	struct packed_block *block;
	struct line *line;
	__u64 number;

	if (entry & ENTRY_BLOCK) {
		line = image_line(first + (position >> 4));
		return line ? line->w[position & 15] : 0;
	}
	line = image_line(first);
	if (!line)
		return 0;
	block = (struct packed_block *)line;
	number = block->before[position >> 6 & 3] +
		 count_bits(block->begins[position >> 6 & 3] & ~0ull >> (63 - (position & 63)));
	forget(number);
	if (number < PACKED_ENTRIES)
		return block->entries[number];
	number -= PACKED_ENTRIES;
	line = image_line(first + 1 + (number >> 4));
	return line ? line->w[number & 15] : 0;
}

/* Multibit trie with strides 16-8-8; leaves are pushed, so the entry found is the outcome. */
static __always_inline __u32 find_prefix4(const volatile struct address_index *index,
					  __u32 address, __u64 zero)
{
	struct line *line = image_line(index->root + (address >> 20));
	__u32 entry;

	if (!line)
		return 0;
	entry = line->w[address >> 16 & 15];
	if (entry & (ENTRY_BLOCK | ENTRY_PACKED)) {
		entry = block_entry(index, entry, address >> 8 & 255, zero);
		forget(entry);
	}
	if (entry & (ENTRY_BLOCK | ENTRY_PACKED)) {
		entry = block_entry(index, entry, address & 255, zero);
		forget(entry);
	}
	return entry;
}

/*
 * Binary search over the prefix lengths that exist (Waldvogel et al., SIGCOMM 1997): an entry says
 * that a prefix or a marker of this length is there, so a longer one may be. Markers carry the
 * outcome of the longest prefix that covers them, so nothing is ever looked up again.
 */
static __always_inline __u32 search_lengths(const volatile struct address_index *index, __u64 hi,
					    __u64 lo)
{
	__u64 node = 1, best = 0, zero = unknown_zero();

	for (int step = 0; step < LENGTH_STEPS; step++) {
		struct line *line = image_line(index->root + (node >> 1));
		struct length_node *at;
		__u64 found, missed;

		if (step >= index->depth || !line)
			break;
		at = (struct length_node *)line + (node & 1);
		found = find_key(index->blocks, index->block_count, hi & at->mask_hi,
				 lo & at->mask_lo, at->length);
		missed = if_zero(found);
		node = (at->after_miss & missed) | (at->after_hit & ~missed);
		best = (best & missed) | (found & ((1u << OUTCOME_BITS) - 1));
		forget(node);
		forget(best);
		if (!node)
			break;
	}
	return best;
}

/* Global functions: verified once, whatever way led to them. */
__noinline int find_src_prefix6(__u64 hi, __u64 lo)
{
	return search_lengths(&shape.address[AXIS_SRC].v6, hi, lo);
}

__noinline int find_dst_prefix6(__u64 hi, __u64 lo)
{
	return search_lengths(&shape.address[AXIS_DST].v6, hi, lo);
}

/* An outcome may change as entries and rules expire. */
static __always_inline __u32 at_this_time(const volatile struct address_axis *axis, __u32 outcome,
					  __u64 ticks, __u64 zero)
{
	for (int i = 0; i < TIMED_STEPS; i++) {
		struct timed_outcome *timed;
		struct line *line;
		__u32 number = outcome & ~OUTCOME_TIMED;

		if (i >= axis->timed_depth || !(outcome & OUTCOME_TIMED))
			break;
		line = image_line(axis->timed + (number >> 2));
		if (!line)
			break;
		timed = (struct timed_outcome *)line + (number & 3);
		outcome = ticks < timed->until ? timed->now : timed->then;
		forget(outcome);
	}
	return outcome;
}

/* What an address leads to in the index of its family. The rodata values remove what this policy
 * has not. */
static __always_inline __u32 find_in_index(const volatile struct address_index *v4,
					   const volatile struct address_index *v6, __u64 hi,
					   __u64 lo, __u32 is_v6, __u64 zero)
{
	__u32 found = 0;

	if (is_v6) {
		if (v6->host_lines)
			found = find_key(v6->hosts, v6->host_lines, hi, lo, 0);
		if (!found && v6->root) {
			if (v6 == &shape.address[AXIS_SRC].v6)
				found = find_src_prefix6(hi, lo);
			else if (v6 == &shape.address[AXIS_DST].v6)
				found = find_dst_prefix6(hi, lo);
			else
				found = search_lengths(v6, hi, lo);
		}
		return found ? found : v6->miss;
	}
	if (v4->host_lines)
		found = find_host4(v4, lo);
	if (!found && v4->root)
		found = find_prefix4(v4, lo, zero);
	return found ? found : v4->miss;
}

/* The outcome of one address, which may change with time. */
static __always_inline __u32 find_on_axis(const volatile struct address_axis *axis,
					  const struct address *address, __u32 v6, __u64 zero)
{
	__u32 outcome = find_in_index(&axis->v4, &axis->v6, address->hi, address->lo, v6, zero);

	forget(outcome);
	return outcome;
}

/* The outcome of one address at this time. */
static __always_inline __u32 find_outcome(const volatile struct address_axis *axis,
					  const struct address *address, __u32 v6, __u64 ticks,
					  __u64 zero)
{
	__u32 outcome = find_on_axis(axis, address, v6, zero);

	if (axis->timed)
		outcome = at_this_time(axis, outcome, ticks, zero);
	return outcome;
}

/* The position of the lowest set bit, which there must be: de Bruijn multiplication (Leiserson,
 * Prokop, Randall 1998), because branches here would be 64 ways for the verifier. */
static const __u8 de_bruijn_bit[64] = {
	0,  1,  2,  53, 3,  7,  54, 27, 4,  38, 41, 8,  34, 55, 48, 28,
	62, 5,  39, 46, 44, 42, 22, 9,  24, 35, 59, 56, 49, 18, 29, 11,
	63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21, 23, 58, 17, 10,
	51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
};

static __always_inline __u32 lowest_bit(__u64 word)
{
	return de_bruijn_bit[(word & -word) * 0x022fdd63cc95386dull >> 58];
}

#endif
