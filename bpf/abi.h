/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the C program and the Rust library share: the layout of the policy image, of the counters
 * and of the small tables beside it. src/abi.rs mirrors every struct; both sides assert the sizes.
 *
 * The policy image is an array of 64-byte lines (one cache line each). Line 0 and on hold
 * struct shape; every other section is found by the line number that the shape gives. All numbers
 * are in the byte order of the host: an image is made on the node that runs it.
 */
#ifndef XDPGATE_ABI_H
#define XDPGATE_ABI_H

#define IMAGE_MAGIC 0x67706478 /* "xdpg" */
#define IMAGE_LAYOUT 2

#define LINE_BYTES 64
#define HOST_CHOICES 2 /* a host or prefix lies in its home line or in one other */
#define HOST4_SLOTS 7
#define HOST6_SLOTS 3
#define LENGTH_STEPS 8 /* binary search over at most 128 prefix lengths */
#define BLOCK_LINES 16 /* 256 entries of 4 bytes */
#define ENTRY_BLOCK 0x80000000u /* trie entry: the first line of a block, not an outcome */
#define ENTRY_PACKED 0x40000000u /* the same of a packed block */
#define PACKED_ENTRIES 7 /* in its first line; 16 in each that follows */
#define OUTCOME_BITS 24
#define OUTCOME_TIMED 0x800000u /* an outcome that changes with time: the number of a timed_outcome */
#define TIMED_STEPS 16 /* moments at which one outcome may change */
#define NO_RULE 0x007ffffeu /* above every rule's number; + 1 it still is an outcome, and not timed */
#define MAX_ROWED 4096 /* rules that rows hold: one summary word over 64 words */
#define MAX_WALK 32 /* rules that one packet may pass by in the rows before one decides */
#define FLOW_SCOPES 16 /* interface scopes that a policy may have whose flows are remembered */
#define ENTRY_STEPS 160 /* entries of counted sets that hold one address; 129 lengths of IPv6 */
#define OUTCOME_LABELS 7
#define LABEL_BIT 27 /* the bits from here on of a label: the bit by which its partners know it */
#define LIST_BOXES 8 /* boxes in a list of one pair */
#define EXTRA_CLASSES 64 /* bits of one word */
#define MAX_MANAGEMENT 32

#define LIMIT_TIME_SHIFT 8 /* rate limits reckon in nanoseconds / 2^8 */
#define SOURCE_SLOTS 3 /* budgets of sources in a line */
#define BAN_SLOTS 2 /* bans in a line */
#define BAN_LENGTHS 8 /* prefix lengths that bans of one kind may have at one time */
#define BAN_KINDS 4 /* of bans: v6 << 1 | destination */
#define BAN_KIND 8 /* the bit of a ban's state where its kind begins; below: its host bits */
#define BAN_USED (1u << 10)
#define BAN_WHAT 0x7ffu /* host bits, kind and BAN_USED: what a ban is looked for by */
#define BAN_ELSEWHERE (1u << 11) /* in the first ban of a line, see bans.h */
#define BAN_VERSION 12 /* from here on: how often the place was used, 8 bits */
#define BAN_VERSION_MASK 0xff000u
#define BAN_EXPIRES 20 /* from here on: the tick from which on it does not hold, 44 bits */

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8

#define INTERFACE_ENTRIES 4096
#define INTERFACE_HOPS 8
#define INTERFACE_GONE 0xffffffffu /* an entry that was taken out; may be used again */
#define INTERFACE_PORT (1u << 0) /* a port of a bridge: what passes goes to its partner */
#define INTERFACE_UNFILTERED (1u << 1) /* a port whose frames are not judged */
#define INTERFACE_DRY_RUN (1u << 2) /* nothing is dropped here, only counted */

/* What a program does at its end that is not the plain case. Bits of one word, asked at one place, so
 * that the plain case has not one instruction for it. */
#define EXIT_REPORT (1u << 0) /* it evaluates: it writes the evaluation and counts nothing */
#define EXIT_FORWARD (1u << 1) /* some interfaces are ports of bridges */
#define EXIT_ATOMIC (1u << 2) /* counters are added to in atomic steps */
#define REASON_SLOTS 16 /* room for more reasons without a new layout */
#define DISPOSITION_SLOTS 4
#define EVENT_BYTES 128 /* of a frame are in its event */
#define BANKS 2 /* of all counters: one counts while the other is read */

/* Why a frame got its verdict. The same numbers as xdpgate::Reason. */
enum reason {
	REASON_DEFAULT = 0,
	REASON_RULE = 1,
	REASON_FAILSAFE = 2,
	REASON_NON_IP = 3,
	REASON_MALFORMED = 4,
	REASON_VLAN_DEPTH = 5,
	REASON_RATE_LIMIT = 6,
	REASON_BAN = 7,
	REASON_NO_POLICY = 8,
	REASON_UNFILTERED = 9,
	REASON_NO_PARTNER = 10,
	REASON_COUNT = 11,
};

/* What became of a frame. */
enum disposition {
	DISPOSITION_PASS = 0,
	DISPOSITION_DROP = 1,
	DISPOSITION_WOULD_DROP = 2, /* judged as drop, passed because of dry run */
};

/* The fields that rules are classified by. */
enum axis {
	AXIS_SRC = 0,
	AXIS_DST = 1,
	AXIS_PROTOCOL = 2,
	AXIS_SPORT = 3,
	AXIS_DPORT = 4,
	AXIS_TCP_FLAGS = 5,
	AXIS_ICMP = 6,
	AXIS_LENGTH = 7,
	AXIS_STATE = 8, /* fragment state and anomalies */
	AXIS_VLAN = 9,
	AXIS_TTL = 10,
	AXIS_DSCP = 11,
	AXIS_COUNT = 12,
};

/* How many values a table axis has; the last one stands for "the packet has no such field". */
#define PROTOCOL_VALUES 257
#define PORT_VALUES 65537
#define TCP_FLAGS_VALUES 257
#define ICMP_VALUES 65537 /* type << 8 | code */
#define LENGTH_VALUES 65576 /* 40 + 65,535 is the longest */
#define STATE_VALUES 16 /* fragment state | bad_fragment << 2 | invalid << 3 */
#define VLAN_VALUES 4097
#define TTL_VALUES 256
#define DSCP_VALUES 64

#define FEATURE_MANAGEMENT (1u << 1) /* the failsafe lets TCP of some peers pass */
#define FEATURE_FAILSAFE (1u << 2)
#define FEATURE_DEFAULT_DROP (1u << 3)
#define FEATURE_MALFORMED_DROP (1u << 4)
#define FEATURE_ROWS (1u << 5) /* some rules are found by rows of bits */
#define FEATURE_SRC (1u << 0) /* some rule looks at source addresses */
#define FEATURE_DST (1u << 7)
#define FEATURE_FIELDS (1u << 6) /* some rule looks at more than addresses, ports and protocol */
#define FEATURE_PAIRS (1u << 8) /* some rules are found by pairs of addresses */
#define FEATURE_EXACT (1u << 9) /* some rules ask for one IPv4 five-tuple each */
#define FEATURE_RECORDS (1u << 10) /* an outcome is the number of a record, not of a rule */
#define FEATURE_TIMED (1u << 11) /* some outcomes change with time */
#define FEATURE_CONDITIONS (1u << 12) /* some rule of rows or pairs expires or has a scope */
#define FEATURE_SCOPES (1u << 14) /* some rule is for some interfaces only */
#define FEATURE_WALK (1u << 13) /* some rule of the rows does not end the search */
#define FEATURE_LIMIT (1u << 15) /* some rule limits a rate */
#define FEATURE_LIMIT_SOURCE (1u << 16) /* some rule limits the rate of each source */
#define FEATURE_FLOWS (1u << 17) /* a packet has one rule at the most: it is worth remembering */
#define FEATURE_ENTRIES (1u << 18) /* some rule counts by entries of sets */

#define RULE_DROP (1u << 0)
#define RULE_PASSIVE (1u << 1) /* counted, and evaluation goes on: count, or monitor mode */
#define RULE_CONDITIONAL (1u << 2) /* its extra says when and where it holds */
#define RULE_LIMIT (1u << 3) /* its extra holds a rate limit */
#define RULE_ENTRIES (1u << 4) /* its extra names the sets whose entries it counts */
#define RULE_EXTRA 8 /* the bits from here on: the number of its extra */

#define LIMIT_BITS (1u << 0) /* the cost is per byte, not per packet */
#define LIMIT_SOURCE (1u << 1) /* each source prefix has a budget of its own */
#define LIMIT_FINE (1u << 2) /* a tick is too coarse for this limit: read the exact clock */

/* How the addresses of one family and direction are looked up. A line number of 0: no such part. */
struct address_index {
	__u32 hosts; /* table of full-length entries, first line */
	__u32 host_lines; /* how many lines the table has */
	__u32 root; /* IPv4: 65,536 trie entries. IPv6: nodes of the search over prefix lengths */
	__u32 blocks; /* IPv4: trie blocks. IPv6: table of prefixes and markers, first line */
	__u32 block_count; /* lines of the blocks, or of that table */
	__u32 miss; /* the outcome of an address that nothing above knows */
	__u32 depth; /* IPv6: steps of the longest search */
};

/* A direction: its addresses, the outcomes that they lead to, and the rows for structured rules. */
struct address_axis {
	struct address_index v4;
	struct address_index v6;
	__u32 outcomes; /* struct outcome or struct pair_outcome, first line */
	__u32 rows; /* first line of this axis's rows */
	__u32 timed; /* struct timed_outcome, first line */
	__u32 timed_depth; /* changes that one outcome may go through */
};

/* A field with a table from its value to a row. */
struct table_axis {
	__u32 table; /* u16 row numbers, first line */
	__u32 rows; /* first line of this axis's rows */
};

/* The header of an image, and, as rodata, what the program is specialised for. */
struct shape {
	__u32 magic;
	__u32 layout;
	__u32 lines; /* in the whole image */
	__u32 features;
	__u64 checksum; /* over all lines after this header */
	__u64 seed[2]; /* of the hash tables: attackers choose keys */
	__u64 local_ports, remote_ports; /* of management traffic, one bit each by its lowest six bits */
	struct address_axis address[2]; /* AXIS_SRC, AXIS_DST */
	struct table_axis table[AXIS_COUNT];
	__u32 axes; /* bit set of the axes that rows are about */
	__u32 row_lines; /* lines of one row: a summary word, then one bit per rule */
	__u32 rowed; /* u32 numbers of the rules that rows hold, in order, first line */
	__u32 rowed_count;
	__u32 row_steps; /* that the search in rows may take */
	struct table_axis class_table[AXIS_COUNT]; /* of the extra classes; a row is one word */
	__u32 class_axes; /* bit set of the axes that extra classes are about */
	__u32 pairs; /* table of pairs, first line */
	__u32 pair_lines;
	__u32 boxes; /* struct rule_box, first line */
	__u32 labels[2]; /* the most labels that one address has, by direction */
	__u32 split_pairs; /* 1: some pairs have lists by destination port and protocol */
	__u32 exact; /* table of IPv4 five-tuples, first line */
	__u32 exact_lines;
	__u32 rules; /* struct rule_record, first line */
	__u32 rule_count;
	__u32 management; /* struct management, first line */
	__u32 management_count;
	__u32 extras; /* struct rule_extra, first line */
	struct address_index entries[2]; /* IPv4, IPv6: from an address to its entry record */
	__u32 entry_records; /* struct entry_record, first line */
	__u32 entry_count; /* records, and counters of entries; number 0 is none */
	__u32 entry_steps; /* entries that one address may lie in */
};

/* What is known from one address alone. Outcome 0 means "no entry". */
struct outcome {
	__u32 best; /* the first rule that this address alone decides, or NO_RULE */
	__u32 row; /* the rules of the rows in which this address can still match */
};

/* An address specification of some rules that holds this address. */
struct label {
	__u32 id; /* 0: none */
	__u32 partners; /* the bits of the labels of the other direction that it makes pairs with */
};

/* The same where rules are found by pairs of addresses: one line. */
struct pair_outcome {
	struct outcome outcome;
	struct label labels[OUTCOME_LABELS];
};

/* An outcome that changes: entries or rules expire. */
struct timed_outcome {
	__u64 until; /* a tick */
	__u32 now; /* the outcome before it; never timed */
	__u32 then; /* the outcome from it on; may be timed */
};

/* What is left to check of a rule once its addresses hold. Boxes of a list lie in the order of
 * their rules. */
struct rule_box {
	__u32 rule; /* its number | BOX_* */
	__u32 sport; /* lowest | highest << 16 */
	__u32 dport;
	__u32 rest; /* protocol | protocol mask << 9 | BOX_PORTS | extra class << 19 */
};

#define BOX_LAST (1u << 31) /* the last of its list */
#define BOX_CONDITIONAL (1u << 30)
#define BOX_PORTS_BIT 18
#define BOX_PORTS (1u << BOX_PORTS_BIT) /* the packet must have ports */
#define PAIR_SPLIT (1u << 23) /* value of a pair: there are lists by port, too */
#define PAIR_KEY 1 /* what a key of the table of pairs is: two labels */
#define SPLIT_KEY 2 /* two labels, destination port and protocol */

/*
 * A trie block of few different entries: one for each run of equal ones. Further entries follow in
 * the next lines.
 */
struct packed_block {
	__u64 begins[4]; /* bits of the positions at which a run begins, but for position 0 */
	__u8 before[4]; /* how many of them are in the words before */
	__u32 entries[PACKED_ENTRIES];
};

/* A step of the search over IPv6 prefix lengths. Node 0 is where the search ends, 1 its root. */
struct length_node {
	__u64 mask_hi, mask_lo;
	__u32 length;
	__u32 after_hit; /* the next node, for longer prefixes */
	__u32 after_miss; /* the next node, for shorter prefixes */
	__u32 reserved;
};

/* A rule, found by its number; numbers are in evaluation order. */
struct rule_record {
	__u32 flags; /* RULE_*, and the number of its extra from bit RULE_EXTRA on */
	__u32 counter; /* its slot in rule_counters, and in the rate state */
};

/*
 * A rate limit as GCRA (ITU-T I.371): a budget is the time at which it will be full again, so that
 * it needs no refilling. Time is in nanoseconds / 2^LIMIT_TIME_SHIFT, for all limits alike.
 */
struct limit {
	__u64 cost; /* time that a packet takes, or a byte: (bytes * cost) >> cost_shift */
	__u64 depth; /* time that the burst takes */
	__u64 id; /* hash of the rule's id and of the limit */
	__u32 flags; /* LIMIT_* */
	__u8 cost_shift;
	__u8 reserved;
	__u8 v4_length, v6_length; /* of the source prefix that has a budget */
};

/* What only some rules have: a line of its own. */
struct rule_extra {
	__u64 expires; /* the tick from which on the rule is as if it were not there */
	__u64 scopes; /* bits of the interface scopes in which it holds; 0: everywhere */
	struct limit limit;
	__u64 src_sets, dst_sets; /* bits of the sets whose entries it counts */
};

/* An entry of a set that counts each of them; found by its number. */
struct entry_record {
	__u64 expires; /* the tick from which on it is as if it were not there */
	__u32 around; /* the next record that holds all of its addresses; 0: none */
	__u32 set; /* bit of its set */
};

/* TCP that passes before any rule: one line. An IPv4 source stands in the low 32 bits of lo. */
struct management {
	__u64 hi, lo;
	__u64 mask_hi, mask_lo;
	__u64 v6;
	__u64 ports, port_mask; /* source port | destination port << 16 */
	__u64 reserved;
};

/* rodata: what belongs to the host, not to a policy. */
struct host_shape {
	__u32 interface_slots;
	__u32 rule_slots;
	__u32 evaluate; /* 1: write the evaluation, count nothing */
	__u32 tick_ns; /* nanoseconds of a tick */
	__u32 frags; /* 1: loaded as xdp.frags (Linux 5.18); frames may lie in several buffers */
	__u32 source_lines; /* of rate_sources */
	__u64 seed[2]; /* of the tables that outlive a policy */
	__u32 ban_lines; /* of the table of bans; 0: there are no bans */
	__u32 flow_lines; /* of the table of flows; 0: none are remembered */
	__u64 tick_zero; /* what the exact clock showed at tick 0, in the time of rate limits */
	__u32 exit; /* EXIT_* */
	__u32 reserved;
};

/* One line that user space may change at any time. */
struct control {
	__u32 dry_run; /* not 0: nothing is dropped, only counted; 2: in pass mode, to user space */
	__u32 bank; /* of the counters that packets count in now: 0 or 1 */
	__u64 zero; /* always 0, which the verifier cannot know: see forget() */
	/* Per kind of ban eight bytes: 1 + the host bits of each prefix length in use, 0 behind the
	 * last. In one word each, so that they change at once. */
	__u64 ban_lengths[BAN_KINDS];
	__u32 event_rule_ns; /* what an event takes of the budget of its rule or reason, in ns: */
	__u32 event_total_ns; /* and of that of all events; a second is what a full one holds */
	__u32 events; /* 1: drops are sampled */
	__u32 reserved2;
};

/* A ban of one prefix in one direction; an IPv4 one stands in the low 32 bits of lo. */
struct ban {
	__u64 state; /* BAN_*: host bits, kind, version, expiry */
	__u64 hi, lo;
	__u64 hits; /* packets that it decided */
};

struct interface_entry {
	__u32 ifindex; /* 0: free, INTERFACE_GONE: was taken out */
	__u16 slot; /* of verdict_counters; slot 0 counts frames of interfaces not listed */
	__u16 flags; /* INTERFACE_PORT, INTERFACE_UNFILTERED, INTERFACE_DRY_RUN */
};

/* Per CPU, interface slot, reason, disposition and bank. */
struct verdict_counter {
	__u64 packets;
	__u64 bytes;
};

/* Per CPU, rule slot and bank: the banks of a rule share a cache line. */
struct rule_counter {
	__u64 packets; /* that the rule decided, or that it only counts */
	__u64 bytes;
	__u64 dropped_packets; /* of these, dropped for real */
	__u64 would_drop_packets; /* and judged as drop, but passed: dry run, or monitor mode */
};

/* Per entry record, written by all CPUs in atomic steps. */
struct entry_counter {
	__u64 packets; /* that a rule matched by this entry of a set */
	__u64 bytes;
};

/*
 * A budget: full again at base + spent. What is spent is only ever added to, in one atomic step, so
 * that nothing that a CPU spends is lost to another. The time in which nothing was to be earned is
 * added to base: see limit.h.
 */
struct budget {
	__u64 base, spent;
};

/* Per rule slot: the budget of the rule, or of those sources that found no place in rate_sources. */
struct rate_budget {
	struct budget budget;
	__u64 limit; /* the id of that by which it was spent: another begins with a full budget */
	__u64 reserved;
};

/* Budgets of sources. One that is full is worth nothing: its place may be taken. */
struct source_line {
	__u32 tags[SOURCE_SLOTS + 1]; /* by the keyed hash of rule and source; the last is unused */
	struct budget budgets[SOURCE_SLOTS];
};

/* A dropped frame, or one that would have been. */
struct event {
	__u64 time; /* bpf_ktime_get_ns */
	__u64 generation; /* of the policy whose rule it is */
	__u32 ifindex;
	__u32 queue; /* on which it was received */
	__u32 length; /* of the frame */
	__u32 rule; /* number in that generation, or NO_RULE */
	__u8 reason, disposition;
	__u16 captured; /* how many of `bytes` are the frame's; the others are anything */
	__u32 reserved;
	__u8 bytes[EVENT_BYTES];
};

/* Per CPU, a line each: what became of the frames that were due to be told. */
struct event_counter {
	__u64 sent;
	__u64 suppressed; /* a budget was spent */
	__u64 lost; /* the ring buffer was full */
	__u64 reserved[5];
};

/* What the evaluating program says of one frame. */
struct evaluation {
	__u32 reason;
	__u32 drop; /* the verdict before dry run */
	__u32 rule; /* number, or NO_RULE */
	__u32 passed_count;
	__u64 ticks, nanoseconds; /* written by xdpgate_clock */
	__u32 reserved[8];
	__u32 passed[MAX_WALK]; /* rules that matched before and only count */
};

_Static_assert(sizeof(struct address_index) == 28, "address_index");
_Static_assert(sizeof(struct address_axis) == 72, "address_axis");
_Static_assert(sizeof(struct shape) == 536, "shape");
_Static_assert(sizeof(struct outcome) == 8, "outcome");
_Static_assert(sizeof(struct packed_block) == 64, "packed_block");
_Static_assert(sizeof(struct pair_outcome) == 64, "pair_outcome");
_Static_assert(sizeof(struct timed_outcome) == 16, "timed_outcome");
_Static_assert(sizeof(struct rule_box) == 16, "rule_box");
_Static_assert(sizeof(struct length_node) == 32, "length_node");
_Static_assert(sizeof(struct rule_record) == 8, "rule_record");
_Static_assert(sizeof(struct limit) == 32, "limit");
_Static_assert(sizeof(struct rule_extra) == 64, "rule_extra");
_Static_assert(sizeof(struct entry_record) == 16, "entry_record");
_Static_assert(sizeof(struct management) == 64, "management");
_Static_assert(sizeof(struct host_shape) == 64, "host_shape");
_Static_assert(sizeof(struct control) == 64, "control");
_Static_assert(sizeof(struct ban) * BAN_SLOTS == LINE_BYTES, "ban");
_Static_assert(sizeof(struct interface_entry) == 8, "interface_entry");
_Static_assert(sizeof(struct verdict_counter) == 16, "verdict_counter");
_Static_assert(sizeof(struct rule_counter) == 32, "rule_counter");
_Static_assert(sizeof(struct entry_counter) == 16, "entry_counter");
_Static_assert(sizeof(struct rate_budget) == 32, "rate_budget");
_Static_assert(sizeof(struct source_line) == LINE_BYTES, "source_line");
_Static_assert(sizeof(struct evaluation) == 192, "evaluation");
/* A ring buffer has no type of its values, so these stand where BTF would. (The offsetof of libbpf is
 * not constant for clang 14.) */
_Static_assert(sizeof(struct event) == 168, "event");
_Static_assert(__builtin_offsetof(struct event, rule) == 28, "event.rule");
_Static_assert(__builtin_offsetof(struct event, captured) == 34, "event.captured");
_Static_assert(__builtin_offsetof(struct event, bytes) == 40, "event.bytes");
_Static_assert(sizeof(struct event_counter) == 64, "event_counter");
_Static_assert(REASON_COUNT <= REASON_SLOTS, "reasons");

#endif
