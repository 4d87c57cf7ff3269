package model

import "testing"

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
