// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The bench around a program under test, and what it is compared with.
 *
 * replay writes the next flow's headers into the test frame and tail-calls the program under test,
 * so that one BPF_PROG_TEST_RUN covers a whole table of flows and caches are honest. transmit sends
 * the same frames out of an interface, as live frames.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u64 w[8];
};

struct address6 {
	__u32 w[4];
};

struct tuple {
	__u32 source, destination;
	__u32 ports;
	__u32 protocol;
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
MAP(tuples, BPF_MAP_TYPE_HASH, struct tuple, __u64, 0);
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

const volatile __u32 flow_count = 1;
const volatile __u32 transmit_ifindex = 0;
__u32 next_flow = 0;

static __always_inline int write_next_flow(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 i = next_flow;
	struct flow *flow;
	__u64 *out = data + 14;

	next_flow = i + 1 < flow_count ? i + 1 : 0;
	flow = bpf_map_lookup_elem(&flows, &i);
	if (!flow || (void *)(out + 8) > end)
		return -1;
#pragma unroll
	for (int j = 0; j < 8; j++)
		out[j] = flow->w[j];
	return 0;
}

SEC("xdp")
int replay(struct xdp_md *ctx)
{
	if (write_next_flow(ctx) == 0)
		bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int transmit(struct xdp_md *ctx)
{
	if (write_next_flow(ctx))
		return XDP_ABORTED;
	return bpf_redirect(transmit_ifindex, 0);
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

/* The floor of exact five-tuples: all five fields in one key. */
SEC("xdp") int floor_tuple(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *found = 0;

	if (data + 54 > end)
		return XDP_PASS;
	if (*(__u16 *)(data + 12) == 0x0008) {
		struct tuple key = {
			.source = *(__u32 *)(data + 26),
			.destination = *(__u32 *)(data + 30),
			.ports = *(__u32 *)(data + 34),
			.protocol = *(__u8 *)(data + 23),
		};

		found = bpf_map_lookup_elem(&tuples, &key);
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
