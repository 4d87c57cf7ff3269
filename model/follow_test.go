package model

import "testing"

// TestFollowAfterRestart: what an earlier process used is Former, unless it is the
// same.
func TestFollowAfterRestart(t *testing.T) {
	s := &Snapshot{Former: &DefaultNetwork().Routing}
	s.Follow(DefaultNetwork())
	if s.Former != nil {
		t.Errorf("the same routing is former: %+v", s.Former)
	}
	s = &Snapshot{Former: &DefaultNetwork().Routing}
	other := DefaultNetwork()
	other.Backend = BackendUDP
	s.Follow(other)
	if s.Former == nil || s.Former.Backend != BackendVXLAN || s.Network.Backend != BackendUDP {
		t.Errorf("the network is %+v, former %+v", s.Network, s.Former)
	}
}

func TestFollow(t *testing.T) {
	s := &Snapshot{}
	first := DefaultNetwork()
	s.Follow(first)
	if s.Network != first || s.Coming != nil || !s.Follows(DefaultNetwork()) {
		t.Fatalf("the first configuration is %+v, coming %+v", s.Network, s.Coming)
	}

	// What is no tunnel is so at once.
	second := DefaultNetwork()
	second.MTU, second.Masquerade.RandomPorts = 1400, false
	s.Follow(second)
	if s.Network != second || s.Coming != nil {
		t.Fatalf("after another MTU, it is %+v, coming %+v", s.Network, s.Coming)
	}

	third := DefaultNetwork()
	third.Backend = BackendUDP
	s.Follow(third)
	if s.Network.Backend != BackendVXLAN || s.Network.MTU != 1400 || !s.Network.Masquerade.RandomPorts {
		t.Errorf("before the tunnels are there, it is %+v", s.Network)
	}
	if s.Coming == nil || s.Coming.Backend != BackendUDP || !s.Follows(third) || s.Follows(second) {
		t.Errorf("coming is %+v", s.Coming)
	}
	s.Arrive()
	if !s.Network.Equal(third) || s.Coming != nil || s.Former == nil || s.Former.Backend != BackendVXLAN {
		t.Errorf("after it, it is %+v, coming %+v, former %+v", s.Network, s.Coming, s.Former)
	}

	// Taken back before it came.
	s.Follow(second)
	s.Follow(third)
	if !s.Network.Equal(third) || s.Coming != nil || !s.Follows(third) {
		t.Errorf("after a change was taken back, it is %+v, coming %+v", s.Network, s.Coming)
	}
	s.Arrive()
	if !s.Network.Equal(third) || s.Former.Backend != BackendVXLAN {
		t.Errorf("nothing was to come, and it is %+v", s.Network)
	}
}

// TestFollowWhatOthersUse: a change that is taken back, or replaced, before it is in use
// here may be in use elsewhere, where it was heard of a moment before.
func TestFollowWhatOthersUse(t *testing.T) {
	network := func(backend Backend) *Network {
		n := DefaultNetwork()
		n.Backend = backend
		return n
	}
	slower := network(BackendUDP)
	slower.MTU = 1400
	s := &Snapshot{}
	s.Follow(network(BackendVXLAN))
	s.Follow(network(BackendUDP))
	if s.Follow(slower); s.Former != nil || s.Coming.MTU != 1400 {
		t.Errorf("of the same tunnels former are %+v, and coming %+v", s.Former, s.Coming)
	}
	for _, last := range []Backend{BackendVXLAN, BackendIPIP} {
		early, late := &Snapshot{}, &Snapshot{}
		for _, s := range []*Snapshot{early, late} {
			s.Follow(network(BackendVXLAN))
			s.Follow(network(BackendUDP))
			s.Follow(network(BackendUDP)) // which changes nothing
			if s.Former != nil {
				t.Fatalf("former is %+v", s.Former)
			}
		}
		early.Arrive()
		early.Follow(network(last))
		late.Follow(network(last))
		receives := func(s *Snapshot, backend Backend) bool {
			return s.Network.Backend == backend || s.Former != nil && s.Former.Backend == backend || s.Coming != nil && s.Coming.Backend == backend
		}
		if !receives(late, early.Network.Backend) || !receives(early, late.Network.Backend) {
			t.Errorf("to %s: one node uses %s and the other %s: %+v, %+v", last, early.Network.Backend, late.Network.Backend, early, late)
		}
	}
}
