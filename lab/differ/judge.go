package main

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// subject is a world whose answers are judged.
type subject struct {
	name  string
	world *world
}

// finding is an answer that the oracle does not have.
type finding struct {
	subject string
	call    call
	got     string
	stays   bool // what is wrong is that a client does not
	want    []answer
}

func (f finding) String() string {
	return fmt.Sprintf("%s: %s: %s; the oracle has %v", f.subject, f.call, f.got, f.want)
}

// tally counts what was tried.
type tally struct {
	calls, again, forwarded, refused, dropped int
	excused                                   map[string]int // by the name of the exception
}

// question is a call with all that may come of it.
type question struct {
	call
	want   []answer
	sticky bool
}

// judge asks all questions in the world of one subject, and returns what the
// oracle does not have. Each is asked until every endpoint of its answers was
// reached, or it is past chance.
func (s *subject) judge(questions []question, t *tally) (findings []finding, err error) {
	reached := map[string]map[answer]bool{} // by what is called and what may come of it
	first := map[string]answer{}            // of clients that stay
	asked := map[string]int{}
	wrong := map[int]bool{}
	key := func(q question) string { return fmt.Sprint(q.protocol, q.to, q.want) }
	pending := make([]int, len(questions))
	for i := range pending {
		pending[i] = i
	}
	for round := 0; len(pending) > 0; round++ {
		answers, err := s.askAll(questions, pending)
		if err != nil {
			return nil, err
		}
		t.calls += len(pending)
		for n, i := range pending {
			q, got := questions[i], answers[n]
			asked[key(q)]++
			if got == (answer{}) && q.want[0] != got && round < 3 {
				t.again++ // it is asked once more below
				continue
			}
			if reached[key(q)] == nil {
				reached[key(q)] = map[answer]bool{}
			}
			reached[key(q)][got] = true
			complaint := ""
			if !slices.Contains(q.want, got) {
				complaint = got.String()
			} else if stay := q.call.String(); q.sticky {
				if before, ok := first[stay]; ok && before != got {
					complaint = fmt.Sprintf("%s, and before %s, though a client stays", got, before)
				}
				first[stay] = got
			}
			if complaint != "" && !wrong[i] {
				wrong[i] = true
				findings = append(findings, finding{s.name, q.call, complaint, slices.Contains(q.want, got), q.want})
			}
		}
		pending = slices.DeleteFunc(pending, func(i int) bool {
			q := questions[i]
			done := len(reached[key(q)]) >= len(q.want) || asked[key(q)] > 30*len(q.want)
			if q.sticky {
				done = round >= 2
			}
			return wrong[i] || done
		})
	}
	for i, q := range questions {
		if n := len(reached[key(q)]); n < len(q.want) && !q.sticky && !wrong[i] {
			got := fmt.Sprintf("only %d of %d after %d calls: %v", n, len(q.want), asked[key(q)], slices.Collect(mapKeys(reached[key(q)])))
			findings = append(findings, finding{s.name, q.call, got, false, q.want})
		}
	}
	return findings, nil
}

// askAll asks from all namespaces at once.
func (s *subject) askAll(questions []question, which []int) ([]answer, error) {
	answers := make([]answer, len(which))
	var group sync.WaitGroup
	var mu sync.Mutex
	var failure error
	for where, from := range s.world.spaces {
		var calls []call
		var at []int
		for n, i := range which {
			if questions[i].client.where == where {
				calls, at = append(calls, questions[i].call), append(at, n)
			}
		}
		if len(calls) == 0 {
			continue
		}
		group.Go(func() {
			got, err := from.ask(calls, func(i int) bool { return questions[which[at[i]]].want[0] == answer{} })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failure = err
				return
			}
			for i, n := range at {
				answers[n] = got[i]
			}
		})
	}
	group.Wait()
	return answers, failure
}

// question asks for what the oracle has.
func (p *plane) question(c call) question { return question{c, p.expect(c), p.sticky(c)} }

// count tells what comes of questions, by the oracle.
func (t *tally) count(questions []question) {
	for _, q := range questions {
		switch want := q.want[0]; {
		case want.server != netip.AddrPort{}:
			t.forwarded++
		case want.refused:
			t.refused++
		default:
			t.dropped++
		}
	}
}
