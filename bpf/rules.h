/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a packet to its rule. Rules are numbered in evaluation order, so the first is the least.
 * src/image/reader/rules.rs mirrors this file.
 */
#ifndef XDPGATE_RULES_H
#define XDPGATE_RULES_H

/* A rule's record: flags and counter slot. */
static __always_inline __u32 *rule_record(__u32 rule)
{
	struct line *line = image_line(shape.rules + (rule >> 3));

	return line ? &line->w[(rule & 7) * 2] : NULL;
}

/* What is done with the packets of a rule, in one word: its number + 1, flags, counter slot. */
static __always_inline __u64 with_record(__u32 rule)
{
	__u32 *record = rule_record(rule);
	__u64 word = (rule + 1) & 0xffffff;

	if (rule != NO_RULE && record)
		word |= (__u64)(record[0] & 0xff) << 24 | (__u64)record[1] << 32;
	return word;
}

/* Whether a rule is there at this time and interface. A global function: verified once, and only
 * rules that expire or have a scope pay for it. */
__noinline int rule_holds(__u32 flags, __u64 ticks, __u64 scopes)
{
	struct line *line = image_line(shape.extras + (flags >> RULE_EXTRA));
	struct rule_extra *extra = (struct rule_extra *)line;

	return extra && ticks < extra->expires && (!extra->scopes || extra->scopes & scopes);
}

#define HAS_PORTS(packet) ((packet)->l4 & L4_PORTS)

/* The value of a packet on a table axis. */
#define AXIS_VALUE_PROTOCOL(p) (p)->protocol
#define AXIS_VALUE_SPORT(p) (HAS_PORTS(p) ? (p)->first : PORT_VALUES - 1)
#define AXIS_VALUE_DPORT(p) (HAS_PORTS(p) ? (p)->second : PORT_VALUES - 1)
#define AXIS_VALUE_TCP_FLAGS(p) (p)->tcp_flags
#define AXIS_VALUE_ICMP(p) ((p)->l4 & L4_ICMP ? (p)->first : ICMP_VALUES - 1)
#define AXIS_VALUE_LENGTH(p) (p)->length
#define AXIS_VALUE_STATE(p) (p)->state
#define AXIS_VALUE_VLAN(p) (p)->vlan
#define AXIS_VALUE_TTL(p) (p)->ttl
#define AXIS_VALUE_DSCP(p) (p)->dscp

#define FOR_TABLE_AXES(DO)                                                                         \
	DO(PROTOCOL) DO(SPORT) DO(DPORT) DO(TCP_FLAGS) DO(ICMP) DO(LENGTH) DO(STATE) DO(VLAN)      \
	DO(TTL) DO(DSCP)

/* The rule of one IPv4 five-tuple + 1, or 0. A global function: verified once. */
__noinline int find_exact_key(__u64 hi, __u64 lo)
{
	return find_key(shape.exact, shape.exact_lines, hi, lo, 0);
}

static __always_inline __u32 find_exact(const struct packet *packet)
{
	__u32 found;

	if (packet->v6 || !HAS_PORTS(packet))
		return NO_RULE;
	found = find_exact_key(packet->src.lo << 32 | packet->dst.lo,
			       (__u64)packet->first << 48 | (__u64)packet->second << 32 |
				       packet->protocol);
	return found ? found - 1 : NO_RULE;
}

/* The classes that the packet is of, one bit each: what boxes do not say. */
static __always_inline __u64 find_classes(const struct packet *packet, __u64 zero)
{
	__u64 classes = ~0ull;
	struct line *line;

#define CLASS_ROW(axis)                                                                            \
	if (shape.class_axes & 1u << AXIS_##axis) {                                                \
		__u32 value = AXIS_VALUE_##axis(packet);                                           \
                                                                                                   \
		forget(value);                                                                     \
		line = image_line(shape.class_table[AXIS_##axis].table + (value >> 5));            \
		if (!line)                                                                         \
			return 0;                                                                  \
		value = ((__u16 *)line->w)[value & 31];                                            \
		line = image_line(shape.class_table[AXIS_##axis].rows + (value >> 3));             \
		if (!line)                                                                         \
			return 0;                                                                  \
		classes &= ((__u64 *)line->w)[value & 7];                                          \
	}
	FOR_TABLE_AXES(CLASS_ROW)
#undef CLASS_ROW
	return classes;
}

/* Negative if a value is not in a range. */
#define OUTSIDE(value, range) (((__s64)(value) - ((range) & 0xffff)) | ((__s64)((range) >> 16) - (value)))

/* What find_in_pair needs of a packet, in one word: a global function takes scalars. */
#define BOX_KEY_PORTLESS (1ull << 48)
#define BOX_KEY_SPORT(key) ((key) & 0xffff)
#define BOX_KEY_DPORT(key) ((key) >> 16 & 0xffff)
#define BOX_KEY_PROTOCOL(key) ((key) >> 32 & 0x1ff)

static __always_inline __u64 box_key(const struct packet *packet)
{
	__u64 key = (__u64)packet->protocol << 32;

	if (HAS_PORTS(packet))
		return key | packet->first | (__u64)packet->second << 16;
	return key | BOX_KEY_PORTLESS;
}

/* The first rule of a list that the packet fits, if it comes before `best`. */
static __always_inline __u32 find_box(__u32 list, __u64 key, __u64 classes, __u32 best,
				      __u64 scopes, __u64 zero)
{
	__s64 portless = -(__s64)(key >> 48 & 1);

	for (int i = 0; i < LIST_BOXES; i++, list++) {
		struct line *line = image_line(shape.boxes + (list >> 2));
		__u32 rule, *record;
		__s64 misfit, late;
		struct rule_box *box;
		__u64 rest;

		if (!line)
			break;
		box = (struct rule_box *)line + (list & 3);
		rule = box->rule & ~(BOX_LAST | BOX_CONDITIONAL);
		rest = box->rest;
		late = (__s64)best - 1 - rule;
		misfit = OUTSIDE(BOX_KEY_SPORT(key), box->sport) |
			 OUTSIDE(BOX_KEY_DPORT(key), box->dport) | late;
		misfit |= -(__s64)((BOX_KEY_PROTOCOL(key) ^ rest) & rest >> 9 & 0x1ff);
		misfit |= (__s64)(classes >> (rest >> 19 & 63) & 1) - 1;
		misfit |= portless & rest << (63 - BOX_PORTS_BIT);
		if (misfit >= 0) {
			if (!(shape.features & FEATURE_CONDITIONS) ||
			    !(box->rule & BOX_CONDITIONAL))
				return rule;
			record = rule_record(rule);
			if (record && rule_holds(*record, bpf_jiffies64(), scopes))
				return rule;
		}
		if ((late | (__s32)box->rule) < 0)
			break; /* no better one follows, or none at all */
		forget(list);
	}
	return best;
}

/* The list of a pair of labels, or of what it is split by. */
static __always_inline __u32 find_list(__u64 hi, __u64 lo, __u32 kind)
{
	return find_key(shape.pairs, shape.pair_lines, hi, lo, kind);
}

/*
 * The first rule of a pair of labels that the packet fits, if it comes before `best`. A global
 * function: inlined, the verifier would walk it once for every pair that a packet may have.
 */
__noinline int find_in_pair(__u64 pair, __u64 key, __u64 classes, __u32 best, __u64 scopes)
{
	__u64 zero = unknown_zero();
	__u32 list = find_list(pair, 0, PAIR_KEY);

	forget(list);
	if (list & (PAIR_SPLIT - 1))
		best = find_box(list & (PAIR_SPLIT - 1), key, classes, best, scopes, zero);
	if (shape.split_pairs && list & PAIR_SPLIT && !(key & BOX_KEY_PORTLESS)) {
		forget(best);
		list = find_list(pair, BOX_KEY_DPORT(key) << 32 | BOX_KEY_PROTOCOL(key), SPLIT_KEY);
		forget(list);
		if (list)
			best = find_box(list & (PAIR_SPLIT - 1), key, classes, best, scopes, zero);
	}
	return best;
}

#define PAIR_STEPS (OUTCOME_LABELS * OUTCOME_LABELS)

/*
 * Rules by pairs of a source and a destination label. A pair is looked up only if each of its
 * labels names the other among its partners; few pairs are left, and nearly all of them are there.
 */
static __always_inline __u32 find_paired(const struct packet *packet, const struct line *src,
					 const struct line *dst, __u32 best, __u64 scopes,
					 __u64 zero)
{
	__u64 candidates = 0, classes = find_classes(packet, zero), key = box_key(packet);
	__u32 steps = shape.labels[AXIS_SRC] * shape.labels[AXIS_DST];

	forget(classes);
	forget(key);
#pragma unroll
	for (int i = 0; i < OUTCOME_LABELS; i++) {
#pragma unroll
		for (int j = 0; j < OUTCOME_LABELS; j++) {
			if (i < shape.labels[AXIS_SRC] && j < shape.labels[AXIS_DST])
				candidates |= (__u64)(src->w[3 + 2 * i] >> (dst->w[2 + 2 * j] >> LABEL_BIT) &
						      dst->w[3 + 2 * j] >> (src->w[2 + 2 * i] >> LABEL_BIT) & 1)
					      << (i * 8 + j);
		}
	}
	for (int step = 0; step < PAIR_STEPS; step++) {
		__u64 i, j;

		forget(candidates);
		forget(best);
		if (step >= steps || !candidates)
			break;
		i = lowest_bit(candidates);
		j = i & 7;
		i >>= 3;
		candidates &= candidates - 1;
		/* Hides from the compiler what it would not tell the verifier. */
		asm volatile("" : "+r"(i), "+r"(j));
		if (i >= OUTCOME_LABELS || j >= OUTCOME_LABELS)
			break;
		best = find_in_pair((__u64)src->w[2 + 2 * i] << 32 | dst->w[2 + 2 * j], key,
				    classes, best, scopes);
	}
	return best;
}

/* The AND of word `word` of the rows of all axes in use. Returns false if a line is missing, which
 * only a broken image can bring about. */
static __always_inline bool and_rows(const __u32 *rows, __u32 word, __u64 *all)
{
	const __u32 axes = shape.axes;

	*all = ~0ull;
#pragma unroll
	for (int axis = 0; axis < AXIS_COUNT; axis++) {
		struct line *line;

		if (!(axes & 1u << axis))
			continue;
		line = image_line(rows[axis] + (word >> 3));
		if (!line)
			return false;
		*all &= ((__u64 *)line->w)[word & 7];
	}
	return true;
}

enum walk {
	WALK_ON, /* the rule is not there at this time or interface */
	WALK_COUNTED, /* it only counts */
	WALK_LIMITS, /* in monitor mode: whether it would have dropped is still to be found out */
	WALK_DECIDES,
	WALK_MASK = 7,
};

/* A rule that the packet matches and that may not end the search. Of one that only counts, beside
 * WALK_*, RULE_ENTRIES and the number of its extra. A global function: verified once. */
__noinline int walk(__u32 rule, __u64 ticks, __u64 scopes, __u64 region_and_bytes, __u32 passed)
{
	__u32 *record = rule_record(rule), sets;

	if (!record)
		return WALK_DECIDES;
	if (shape.features & FEATURE_CONDITIONS && *record & RULE_CONDITIONAL &&
	    !rule_holds(*record, ticks, scopes))
		return WALK_ON;
	if (!(*record & RULE_PASSIVE))
		return WALK_DECIDES;
	sets = (*record & ~((1u << RULE_EXTRA) - 1)) | (*record & RULE_ENTRIES);
	if (shape.features & FEATURE_LIMIT && *record & RULE_LIMIT)
		return WALK_LIMITS | sets;
	pass_by(region_and_bytes >> 32, region_and_bytes, rule, record[1], passed, *record & RULE_DROP);
	return WALK_COUNTED | sets;
}

/*
 * Lets a packet from this source go by a limit in monitor mode, which says what it would have done.
 * A global function: verified once.
 */
__noinline int walk_limit(__u32 rule, __u64 hi, __u64 lo, __u64 region_and_bytes,
			  __u64 v6_and_passed)
{
	__u32 *record = rule_record(rule), bytes = region_and_bytes;
	bool over;

	/* Global functions are verified whether they are called or not. */
	if (!record || !(shape.features & FEATURE_LIMIT) || !(shape.features & FEATURE_WALK))
		return WALK_ON;
	over = over_limit(bytes, hi, lo, v6_and_passed >> 32, record[0], record[1],
			  unknown_zero());
	pass_by(region_and_bytes >> 32, bytes, rule, record[1], v6_and_passed, over);
	return WALK_COUNTED;
}

/*
 * The rules of the rows that every field of the packet allows, in their order, up to the one that
 * decides. Bit vectors over classes with a summary word (Lakshman and Stiliadis, SIGCOMM 1998;
 * Baboescu and Varghese, SIGCOMM 2001): bit w of word 0 says that word 1 + w of the row is not 0.
 * Rules that only count do so on the way.
 */
static __always_inline __u32 find_rowed(const struct packet *packet, __u32 src_row, __u32 dst_row,
					__u32 best, const struct around *around,
					struct passing *passing, __u64 zero)
{
	__u32 rows[AXIS_COUNT] = {};
	__u64 summary, bits = 0;
	struct line *line;
	__u32 word = 0;

	rows[AXIS_SRC] = shape.address[AXIS_SRC].rows + src_row * shape.row_lines;
	rows[AXIS_DST] = shape.address[AXIS_DST].rows + dst_row * shape.row_lines;
#define TABLE_ROW(axis)                                                                            \
	if (shape.axes & 1u << AXIS_##axis) {                                                      \
		__u32 value = AXIS_VALUE_##axis(packet);                                           \
                                                                                                   \
		forget(value);                                                                     \
		line = image_line(shape.table[AXIS_##axis].table + (value >> 5));                  \
		if (!line)                                                                         \
			return best;                                                               \
		rows[AXIS_##axis] = shape.table[AXIS_##axis].rows +                                \
				    ((__u16 *)line->w)[value & 31] * shape.row_lines;              \
	}
	FOR_TABLE_AXES(TABLE_ROW)
#undef TABLE_ROW
	/* Else each of the rows takes eight bytes of stack. */
	asm volatile("" : : "r"(rows) : "memory");

	if (!and_rows(rows, 0, &summary))
		return best;
	/* As unknown from the start as after one step. */
	forget(summary);
	if (shape.features & FEATURE_WALK)
		forget(passing->count);
	if (shape.features & FEATURE_ENTRIES) {
		forget(passing->src_sets);
		forget(passing->dst_sets);
	}
	for (int i = 0; i < 64 + MAX_WALK + 1; i++) {
		__u32 number, step;

		if (i >= shape.row_steps)
			break;
		if (!bits) {
			if (!summary)
				break;
			word = lowest_bit(summary);
			summary &= summary - 1;
			forget(summary);
			forget(word);
			if (!and_rows(rows, word + 1, &bits))
				break;
			forget(bits);
			continue;
		}
		number = word * 64 + lowest_bit(bits);
		bits &= bits - 1;
		forget(bits);
		line = image_line(shape.rowed + (number >> 4));
		if (!line)
			break;
		number = line->w[number & 15];
		forget(number);
		if (number >= best)
			break;
		if (!(shape.features & FEATURE_WALK))
			return number;
		step = walk(number, around->ticks, around->scopes,
			    (__u64)passing->region << 32 | passing->bytes, passing->count);
		if (shape.features & FEATURE_LIMIT && (step & WALK_MASK) == WALK_LIMITS)
			step = (step & ~WALK_MASK) |
			       walk_limit(number, packet->src.hi, packet->src.lo,
					  (__u64)passing->region << 32 | passing->bytes,
					  (__u64)packet->v6 << 32 | passing->count);
		if ((step & WALK_MASK) == WALK_DECIDES)
			return number;
		if ((step & WALK_MASK) == WALK_COUNTED) {
			passing->count++;
			if (shape.features & FEATURE_ENTRIES) {
				add_sets(passing, step);
				forget(passing->src_sets);
				forget(passing->dst_sets);
			}
		}
		forget(passing->count);
	}
	return best;
}

/* The outcome of one address: the rule that it decides alone, the row of the rules of the rows,
 * and the line with its labels. Without records an outcome is a rule's number + 1. */
static __always_inline struct line *find_by_address(const volatile struct address_axis *axis,
						    const struct address *address, __u32 v6,
						    __u32 *best, __u32 *row,
						    const struct around *around, __u64 zero)
{
	__u32 outcome = find_outcome(axis, address, v6, around->ticks, zero);
	struct line *line;
	__u32 rule;

	if (!(shape.features & FEATURE_RECORDS)) {
		rule = outcome - 1;
		line = NULL;
	} else if (shape.features & FEATURE_PAIRS) {
		line = image_line(axis->outcomes + outcome);
		rule = line ? line->w[0] : NO_RULE;
		*row = line ? line->w[1] : 0;
		forget(*row);
	} else {
		line = image_line(axis->outcomes + (outcome >> 3));
		rule = line ? line->w[(outcome & 7) * 2] : NO_RULE;
		*row = line ? line->w[(outcome & 7) * 2 + 1] : 0;
		forget(*row);
	}
	*best = rule < *best ? rule : *best;
	forget(*best);
	return line;
}

/* The rule that decides, or NO_RULE, if there are ONLY_SIMPLE_RULES. */
static __always_inline __u32 find_simple_rule(const struct packet *packet, __u64 zero)
{
	__u32 rule = NO_RULE, other;

	if (shape.features & FEATURE_SRC)
		rule = find_on_axis(&shape.address[AXIS_SRC], &packet->src, packet->v6, zero) - 1;
	if (shape.features & FEATURE_DST) {
		other = find_on_axis(&shape.address[AXIS_DST], &packet->dst, packet->v6, zero) - 1;
		rule = other < rule ? other : rule;
	}
	if (shape.features & FEATURE_EXACT) {
		other = find_exact(packet);
		rule = other < rule ? other : rule;
	}
	return rule;
}

/* The rule that decides, or NO_RULE. */
static __always_inline __u32 find_rule(const struct packet *packet, const struct around *around,
				       struct passing *passing, __u64 zero)
{
	__u32 rule = NO_RULE, src_row = 0, dst_row = 0, other;
	struct line *src = NULL, *dst = NULL;

	if (shape.features & FEATURE_SRC)
		src = find_by_address(&shape.address[AXIS_SRC], &packet->src, packet->v6, &rule,
				      &src_row, around, zero);
	if (shape.features & FEATURE_DST)
		dst = find_by_address(&shape.address[AXIS_DST], &packet->dst, packet->v6, &rule,
				      &dst_row, around, zero);
	if (shape.features & FEATURE_EXACT) {
		other = find_exact(packet);
		rule = other < rule ? other : rule;
	}
	forget(rule);
	if (shape.features & FEATURE_PAIRS && src && dst)
		rule = find_paired(packet, src, dst, rule, around->scopes, zero);
	if (shape.features & FEATURE_ROWS)
		rule = find_rowed(packet, src_row, dst_row, rule, around, passing, zero);
	forget(rule);
	return rule;
}

#endif
