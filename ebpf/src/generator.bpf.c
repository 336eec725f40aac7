// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * Makes the frames of a flood. Not part of the recorder: measurements and tests run it with
 * BPF_F_TEST_XDP_LIVE_FRAMES, which hands frame after frame of one template to it.
 *
 * Each frame gets its number and its flow, and goes to the interface that was named. Frames are not made
 * before they are due: until then, and when all are made, it drops what it is given. It runs on one CPU.
 *
 * It must never send a number twice: what an interface does not take is counted there.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* Set before the load. */
const volatile __u32 ifindex = 0;
const volatile __u64 count = 0;
/* Time between two frames; 0 = as fast as it goes. */
const volatile __u64 gap_ns = 0;
/* Flows are first_flow to first_flow + flow_mask; the port is 10000 above the flow. */
const volatile __u16 first_flow = 0;
const volatile __u16 flow_mask = 0;
/* Fill the payload with random bytes, anew for each frame. */
const volatile __u32 random_payload = 0;
/* Other than 0. */
const volatile __u64 seed = 1;

/* Frames made so far: the number of the next one. */
__u64 made = 0;
__u64 start_ns = 0;
__u64 state = 0;

#define FIRST_PORT 10000
/* Words of random payload: enough for a frame of 1514 bytes. */
#define WORDS 182

/* Ethernet, IPv4 without options, UDP without checksum, flow and number. The lower half of the number also
 * stands in the source address: a packet that is cut to its headers still tells it. */
struct frame {
	__u8 destination_address[6];
	__u8 source_address[2];
	__be32 low_number;
	__be16 type;
	__u8 ip[20];
	__be16 source;
	__be16 destination;
	__u8 udp[4];
	__be64 flow;
	__be64 number;
} __attribute__((packed));

static __always_inline void fill(void *at, void *end)
{
	__u64 x = state ? state : seed;

	for (int i = 0; i < WORDS; i++) {
		__u64 *word = at + 8 * i;

		if ((void *)(word + 1) > end)
			break;
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		*word = x;
	}
	state = x;
}

SEC("xdp")
int tapedeck_generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = data;
	__u64 number = made;
	__u16 flow = first_flow + (number & flow_mask);

	if ((void *)(frame + 1) > end || number >= count)
		return XDP_DROP;
	if (gap_ns) {
		__u64 now = bpf_ktime_get_ns();

		if (!start_ns)
			start_ns = now;
		if (now - start_ns < number * gap_ns)
			return XDP_DROP;
	}
	made = number + 1;
	frame->low_number = bpf_htonl((__u32)number);
	frame->source = bpf_htons(FIRST_PORT + flow);
	frame->flow = bpf_cpu_to_be64(flow);
	frame->number = bpf_cpu_to_be64(number);
	if (random_payload)
		fill(frame + 1, end);
	return bpf_redirect(ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
