// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The bench around a program under test, and what it is compared with.
 *
 * replay writes the next flow's headers into the test frame and tail-calls the program under test,
 * so that one BPF_PROG_TEST_RUN covers a whole table of flows and caches are honest.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u64 w[8];
};

struct address6 {
	__u32 w[4];
};

struct lpm4 {
	__u32 length;
	__u32 address;
};

struct lpm6 {
	__u32 length;
	struct address6 address;
};

#define MAP(name, map_type, key_type, value_type, flags)                                           \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(max_entries, 1);                                                            \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(map_flags, flags);                                                          \
	} name SEC(".maps")

MAP(flows, BPF_MAP_TYPE_ARRAY, __u32, struct flow, BPF_F_MMAPABLE);
MAP(hosts4, BPF_MAP_TYPE_HASH, __u32, __u64, 0);
MAP(hosts6, BPF_MAP_TYPE_HASH, struct address6, __u64, 0);
MAP(prefixes4, BPF_MAP_TYPE_LPM_TRIE, struct lpm4, __u64, BPF_F_NO_PREALLOC);
MAP(prefixes6, BPF_MAP_TYPE_LPM_TRIE, struct lpm6, __u64, BPF_F_NO_PREALLOC);
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} target SEC(".maps");

const volatile __u32 flow_mask = 0;
__u32 next_flow = 0;

SEC("xdp")
int replay(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 i = next_flow++ & flow_mask;
	struct flow *flow = bpf_map_lookup_elem(&flows, &i);
	__u64 *out = data + 14;

	if (!flow || (void *)(out + 8) > end)
		return XDP_ABORTED;
#pragma unroll
	for (int j = 0; j < 8; j++)
		out[j] = flow->w[j];
	bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

/* The bare verdicts: what the harness itself costs. */
SEC("xdp") int empty_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp") int empty_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

static __always_inline int count(__u32 action)
{
	__u64 *counter = bpf_map_lookup_elem(&verdicts, &action);

	if (counter)
		++*counter;
	return action;
}

/* The floor: the least parsing, one lookup in the kernel's own map, one counter. */
SEC("xdp") int floor_hash(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 type;
	void *found = 0;

	if (data + 54 > end)
		return XDP_PASS;
	type = *(__u16 *)(data + 12);
	if (type == 0x0008) {
		__u32 key = *(__u32 *)(data + 26);

		found = bpf_map_lookup_elem(&hosts4, &key);
	} else if (type == 0xdd86) {
		struct address6 key = *(struct address6 *)(data + 22);

		found = bpf_map_lookup_elem(&hosts6, &key);
	}
	return count(found ? XDP_DROP : XDP_PASS);
}

SEC("xdp") int floor_lpm(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 type;
	void *found = 0;

	if (data + 54 > end)
		return XDP_PASS;
	type = *(__u16 *)(data + 12);
	if (type == 0x0008) {
		struct lpm4 key = { 32, *(__u32 *)(data + 26) };

		found = bpf_map_lookup_elem(&prefixes4, &key);
	} else if (type == 0xdd86) {
		struct lpm6 key = { 128, *(struct address6 *)(data + 22) };

		found = bpf_map_lookup_elem(&prefixes6, &key);
	}
	return count(found ? XDP_DROP : XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
