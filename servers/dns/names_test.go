package dns

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestWatchNames: names that are asked for most are found among any number of
// others, in bounded memory, by who watches.
func TestWatchNames(t *testing.T) {
	s := New(nil, nil, nil)
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: nobody{}, random: 1}
	served, now := servedNow(t), time.Unix(100, 0)
	ask := func(name string, kind uint16) {
		a.message(served, packed(t, new(dns.Msg).SetQuestion(name, kind)), client, nil)
		s.watched.see(a, now)
	}
	ask("before.example.", dns.TypeA)
	stop := s.WatchNames()
	for i := range 20_000 {
		ask(fmt.Sprintf("random%d.example.", i), dns.TypeA)
		if i%4 == 0 {
			ask("Often.example.", dns.TypeAAAA)
		}
		if i%1000 == 0 {
			now = now.Add(time.Second)
		}
	}
	for kept := range *s.watched.all.Load() {
		if n := len((*s.watched.all.Load())[kept].counts); n != maxNames {
			t.Errorf("%d names are kept", n)
		}
	}
	all := stop()
	if len(all) > 10 {
		t.Errorf("%d names stand out", len(all))
	}
	found := uint64(0)
	for _, n := range all {
		if n.Name.String() == "often.example." && n.Type == "AAAA" {
			found = n.Count
		}
		if n.Name.String() == "before.example." {
			t.Error("what was asked before counts")
		}
	}
	if found < 4000 || found > 6500 {
		t.Errorf("5000 queries for one name are counted as %d", found)
	}
	if s.watched.all.Load() != nil {
		t.Error("it is counted on though nobody watches")
	}
	for range maxWatching {
		defer s.WatchNames()()
	}
	if last := s.WatchNames(); last() != nil {
		t.Error("any number may watch")
	}
}
