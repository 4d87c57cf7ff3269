/* IPv4 in IPv4 (RFC 2003), as the kernel's own device makes and takes it.
 *
 *   pod -> stack -> device: encap -> uplink
 *   uplink: decap -> device -> stack -> pod
 *
 * The stack sees inner packets come and go by the device, so that its reverse
 * path filter and every firewall rule find what they would find with the
 * kernel's own. The device is one end of a veth pair. The other is the divider:
 * it takes no GSO packets, so what is sent by it arrives at the device in
 * segments. */
#include "kernel.h"

volatile const __u32 local; /* the node's address; all addresses are in network order */
volatile const __u32 pods, pods_mask; /* the addresses of its pods */
volatile const __u32 device, divider, uplink; /* interface indexes */

/* Packets that were dropped, by reason. */
struct {
	__u64 no_peer;   /* sent by the device, but to nobody's tunnel MAC, or not IPv4 */
	__u64 no_room;   /* the kernel refused to make or take the room of the outer header */
	__u64 fragment;  /* outer fragments cannot be put together here */
	__u64 bad_outer; /* wrong checksum of the outer header */
	__u64 bad_inner; /* no IPv4 packet within */
	__u64 bad_ecn;   /* it met congestion, and its sender does not listen (RFC 6040) */
	__u64 bad_icmp;  /* an ICMP error that does not tell whose packet it is about, or an MTU that cannot be */
} dropped;

inline int drop(__u64 *reason)
{
	__sync_fetch_and_add(reason, 1);
	return TC_ACT_SHOT;
}

/* The MAC of a tunnel's end: a prefix, locally administered, and the address of
 * its node. */
enum { MAC_PREFIX = 0x02fa };
struct mac {
	__u16 prefix, high, low;
};

inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

inline __u16 checksum(struct iphdr *ip)
{
	return ~fold(bpf_csum_diff(0, 0, ip, sizeof(*ip), 0));
}

inline int grow(struct __sk_buff *skb, __u64 flags)
{
	return bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
		flags | BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET);
}

/* encap is on both ways of the device: out, and in for what has been divided. */
SEC("tc") int encap(struct __sk_buff *skb)
{
	struct mac to;
	struct iphdr inner;
	if (skb->protocol != htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, 0, &to, sizeof(to)) || to.prefix != htons(MAC_PREFIX) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &inner, sizeof(inner)))
		return drop(&dropped.no_peer);
	__u32 peer = (__u32)to.low << 16 | to.high;
	if (peer == local) /* decap had it divided; it is for the stack */
		return TC_ACT_UNSPEC;

	int err = grow(skb, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
	if (err == -EALREADY || err == -ENOTSUPP) {
		/* A pod's own tunnel, or decap has left traces; or GSO that is
		 * neither of TCP nor of UDP_SEGMENT. The kernel cannot have two
		 * levels of GSO; without GSO, nobody looks at the flag. */
		if (skb->gso_size) /* but never twice */
			return skb->ingress_ifindex == device ? drop(&dropped.no_room) : bpf_redirect(divider, 0);
		err = grow(skb, 0);
	}
	if (err)
		return drop(&dropped.no_room);

	/* Never to be fragmented, as it could not be put together again: a
	 * router that cannot pass it on says so, and relay tells the sender. */
	__u32 len = skb->len - ETH_HLEN;
	struct iphdr outer = {
		.version_ihl = 0x45,
		.tos = inner.tos, /* ECN as well: RFC 6040, normal mode */
		.tot_len = len > 0xffff ? 0 : htons(len), /* as BIG TCP has it; segments get their own */
		.frag_off = htons(IP_DF),
		.ttl = 64,
		.protocol = IPPROTO_IPIP,
		.saddr = local,
		.daddr = peer,
	};
	outer.check = checksum(&outer);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0))
		return drop(&dropped.no_room);
	skb->mark = 0; /* marks are about the inner packet's route */
	return bpf_redirect_neigh(uplink, 0, 0, 0);
}

/* consumed tells that a packet goes no further than to a pod or a socket. A
 * packet for the node that has no socket may be about to leave by NAT. */
inline bool consumed(struct __sk_buff *skb, struct iphdr *ip)
{
	struct tuple4 tuple = {.saddr = ip->saddr, .daddr = ip->daddr};
	if ((ip->daddr & pods_mask) == pods)
		return true;
	if (ip->version_ihl != 0x45 || ip->protocol != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 2 * sizeof(*ip), &tuple.sport, 4))
		return false;
	void *sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

enum { SHRINK = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET };

inline int shrink(struct __sk_buff *skb, __u64 flags)
{
	return bpf_skb_adjust_room(skb, -(int)sizeof(struct iphdr), BPF_ADJ_ROOM_MAC, SHRINK | flags);
}

/* relay turns an ICMP error about an outer packet into one about the packet in
 * it, for who sent that:
 *
 *   IP, ICMP, outer IP, inner IP, ...  ->  IP, ICMP, inner IP, ...
 *
 * Routers quote 8 bytes at least, which are not enough, but as much as they
 * can since RFC 1812, 4.3.2.3. */
inline int relay(struct __sk_buff *skb, struct iphdr *ip)
{
	struct {
		struct icmphdr icmp;
		struct iphdr outer;
	} was;
	struct {
		struct iphdr ip;
		struct icmphdr icmp;
	} now = {};
	struct iphdr inner;
	const int at = ETH_HLEN + sizeof(*ip);
	if (checksum(ip) || ip->frag_off & htons(IP_MF | IP_OFFSET) ||
	    bpf_skb_load_bytes(skb, at, &was, sizeof(was)) ||
	    was.outer.version_ihl != 0x45 || was.outer.protocol != IPPROTO_IPIP || was.outer.saddr != local)
		return TC_ACT_UNSPEC;
	if (was.icmp.type != ICMP_DEST_UNREACH && was.icmp.type != ICMP_TIME_EXCEEDED)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, at + sizeof(was), &inner, sizeof(inner)) || inner.version_ihl >> 4 != 4)
		return drop(&dropped.bad_icmp);

	now.icmp.type = ICMP_DEST_UNREACH;
	now.icmp.code = ICMP_HOST_UNREACH; /* RFC 2003, 4: the sender knows no tunnel */
	if (was.icmp.type == ICMP_DEST_UNREACH && was.icmp.code == ICMP_FRAG_NEEDED) {
		__u16 mtu = htons(was.icmp.mtu);
		if (mtu < MIN_MTU + sizeof(struct iphdr))
			return drop(&dropped.bad_icmp);
		now.icmp.code = ICMP_FRAG_NEEDED;
		now.icmp.mtu = htons(mtu - sizeof(struct iphdr));
	}
	/* The difference, so that what was wrong stays wrong. */
	__u32 sum = (__u16)~was.icmp.check;
	was.icmp.check = 0;
	now.icmp.check = ~fold(bpf_csum_diff(&was, sizeof(was), &now.icmp, sizeof(now.icmp), sum));
	now.ip = *ip;
	now.ip.tot_len = htons(htons(ip->tot_len) - sizeof(struct iphdr));
	now.ip.daddr = inner.saddr;
	now.ip.check = 0;
	now.ip.check = checksum(&now.ip);
	if (shrink(skb, 0) || bpf_skb_store_bytes(skb, ETH_HLEN, &now, sizeof(now), BPF_F_RECOMPUTE_CSUM))
		return drop(&dropped.no_room);
	return TC_ACT_UNSPEC; /* by the uplink, where the router is */
}

/* decapsulated is what becomes of the inner ECN bits for the sake of the outer
 * (RFC 6040, 4.2), or -1 for a packet to be dropped. */
inline int decapsulated(__u8 outer, __u8 inner)
{
	outer &= ECN_MASK;
	inner &= ECN_MASK;
	if (outer == ECN_CE)
		return inner ? ECN_CE : -1;
	if (outer == ECN_ECT1 && inner == ECN_ECT0)
		return ECN_ECT1;
	return inner;
}

/* decap is on the way in of the uplink. */
SEC("tc") int decap(struct __sk_buff *skb)
{
	struct iphdr outer, inner;
	/* What carries the tag of a VLAN is not of this interface. */
	if (skb->protocol != htons(ETH_P_IP) || skb->vlan_present || skb->pkt_type != PACKET_HOST ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &outer, sizeof(outer)) ||
	    outer.version_ihl != 0x45 || outer.daddr != local)
		return TC_ACT_UNSPEC;
	if (outer.protocol == IPPROTO_ICMP)
		return relay(skb, &outer);
	if (outer.protocol != IPPROTO_IPIP)
		return TC_ACT_UNSPEC;
	if (outer.frag_off & htons(IP_MF | IP_OFFSET))
		return drop(&dropped.fragment);
	if (checksum(&outer))
		return drop(&dropped.bad_outer);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(outer), &inner, sizeof(inner)) || inner.version_ihl >> 4 != 4)
		return drop(&dropped.bad_inner);
	int ecn = decapsulated(outer.tos, inner.tos);
	if (ecn < 0)
		return drop(&dropped.bad_ecn);

	/* A packet that GRO has put together says of itself to be one in a
	 * tunnel. Newer kernels can be told that it is none any more. With
	 * others, drivers that segment what is in tunnels would look for two
	 * IP headers and drop it (i40e_tx_enable_csum): so it is divided
	 * before it may come to such. The stack itself does not mind. */
	bool divide = false;
	int err = shrink(skb, skb->gso_size ? BPF_F_ADJ_ROOM_DECAP_IPXIP4 : 0);
	if (err == -EINVAL) {
		divide = !consumed(skb, &inner);
		err = shrink(skb, 0);
	}
	if (err)
		return drop(&dropped.no_room);

	struct mac to = {htons(MAC_PREFIX), local, local >> 16};
	/* What a network card has summed up begins after the MAC header: here,
	 * nothing is to be recomputed. */
	err = bpf_skb_store_bytes(skb, 0, &to, sizeof(to), 0);
	if (ecn != (inner.tos & ECN_MASK)) {
		struct iphdr was = inner;
		inner.tos = (inner.tos & ~ECN_MASK) | ecn;
		inner.check = ~fold(bpf_csum_diff(&was, 4, &inner, 4, (__u16)~inner.check));
		err |= bpf_skb_store_bytes(skb, ETH_HLEN, &inner, sizeof(inner), BPF_F_RECOMPUTE_CSUM);
	}
	if (err)
		return drop(&dropped.no_room);
	return divide ? bpf_redirect(divider, 0) : bpf_redirect(device, BPF_F_INGRESS);
}

char terms[] SEC("license") = "Apache-2.0";
