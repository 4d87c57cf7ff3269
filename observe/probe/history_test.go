package probe

import (
	"testing"
)

// round notes an ICMP answer, or none, of each path to a peer.
func round(h *History, peer string, down ...Path) {
	for _, path := range Paths {
		r := Result{Peer: peer, Path: path, Family: "IPv4", Kind: ICMP, Sent: 1, RTT: 0.001, OK: true}
		for _, p := range down {
			if p == path {
				r.OK, r.Lost, r.RTT, r.Error = false, 1, 0, "why"
			}
		}
		h.Note(r, nil)
	}
}

// TestFaults: a pod path that fails for some rounds while the nodes reach each
// other is a fault; a node that is off, or restarted, is none, nor is one that
// has no endpoint as far as is known.
func TestFaults(t *testing.T) {
	var h History
	round(&h, "b")
	round(&h, "b", PodToPod, HostToPod)
	round(&h, "b", PodToPod, HostToPod)
	if faults := h.Faults(); faults != nil {
		t.Errorf("after two rounds: %+v", faults)
	}
	round(&h, "b", PodToPod, HostToPod)
	faults := h.Faults()
	if len(faults) != 1 || faults[0].Peer != "b" || faults[0].Error != "why" || faults[0].Words() != "from pods to pods and from the node to pods" {
		t.Errorf("after three rounds: %+v", faults)
	}
	round(&h, "b", Paths[:]...)
	if faults := h.Faults(); faults != nil {
		t.Errorf("the node is off: %+v", faults)
	}
	round(&h, "b", PodToPod, HostToPod)
	if faults := h.Faults(); len(faults) != 1 {
		t.Errorf("it is on again: %+v", faults)
	}
	round(&h, "b")
	if faults := h.Faults(); faults != nil {
		t.Errorf("it was mended: %+v", faults)
	}

	for range 5 {
		round(&h, "c", PodToPod, HostToPod)
	}
	if faults := h.Faults(); faults != nil {
		t.Errorf("c was not seen to have an endpoint: %+v", faults)
	}
	h.Vouch("c", true)
	if faults := h.Faults(); len(faults) != 1 || faults[0].Peer != "c" {
		t.Errorf("c has one: %+v", faults)
	}

	h.Vouch("c", false)
	if faults := h.Faults(); faults != nil {
		t.Errorf("the agent of c ended: %+v", faults)
	}

	h.Forget(func(key Key) bool { return key.Peer == "c" })
	if faults := h.Faults(); faults != nil || len(h.Tracks) != len(Paths) {
		t.Errorf("c is gone: %+v", h)
	}
	if b := h.Tracks[Key{"b", PodToPod, "IPv4"}]; b.Sent != 7 || b.Lost != 5 || b.Answers != 2 || !b.Up {
		t.Errorf("%+v", b)
	}
}

// TestFaultsOfBothFamilies are one.
func TestFaultsOfBothFamilies(t *testing.T) {
	var h History
	for _, family := range []string{"IPv4", "IPv6"} {
		for _, path := range Paths {
			ping := Result{Peer: "b", Path: path, Family: family, Kind: ICMP, Sent: 1, OK: true}
			for range 3 {
				h.Note(ping, &Result{Kind: MTU, Planned: 1500, Found: 1404})
			}
		}
	}
	if faults := h.Faults(); len(faults) != 1 || len(faults[0].Families) != 2 || faults[0].Passed != 1404 {
		t.Errorf("%+v", faults)
	}
}

// TestSwallowed: large packets that vanish are a fault after some rounds, with
// what does pass; a path that is smaller and says so is none.
func TestSwallowed(t *testing.T) {
	var h History
	key := Key{"b", HostToHost, "IPv4"}
	ping := Result{Peer: "b", Path: HostToHost, Family: "IPv4", Kind: ICMP, Sent: 1, OK: true}
	for range 5 {
		h.Note(ping, &Result{Kind: MTU, OK: true, Planned: 1500, Found: 1400, Told: true})
	}
	if faults := h.Faults(); faults != nil || h.Tracks[key].Passed != 1400 {
		t.Errorf("%+v", faults)
	}
	for i := range 3 {
		if h.Search(key) != (i == 2) {
			t.Errorf("in round %d, it is time to search: %v", i+1, i != 2)
		}
		lost := &Result{Kind: MTU, Planned: 1500}
		if i == 2 {
			lost.Found = 1380
		}
		h.Note(ping, lost)
	}
	faults := h.Faults()
	if len(faults) != 1 || !faults[0].Large || faults[0].Words() != "from node to node" || faults[0].Planned != 1500 || faults[0].Passed != 1380 {
		t.Errorf("%+v", faults)
	}
	h.Note(ping, &Result{Kind: MTU, OK: true, Planned: 1500, Found: 1500})
	if faults := h.Faults(); faults != nil || h.Tracks[key].Passed != 1500 {
		t.Errorf("it was mended: %+v", faults)
	}
}
