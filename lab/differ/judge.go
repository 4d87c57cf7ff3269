package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/fairlead-net/fairlead/plan/service"
)

// subject is a world whose answers are judged.
type subject struct {
	name  string
	world *world
	stays map[stay]stayed // since former states; nil: it is not remembered
}

// finding is an answer that the oracle does not have.
type finding struct {
	subject string
	call    call
	answer  answer // zero if what is wrong is that some never answered
	got     string
	stays   bool // what is wrong is that a client does not
	want    []answer
}

func (f finding) String() string {
	return fmt.Sprintf("%s: %s: %s; the oracle has %v", f.subject, f.call, f.got, f.want)
}

// tally counts what was tried.
type tally struct {
	calls, forwarded, refused, dropped, contested int

	again   map[string]int // after silence, by subject and protocol
	excused map[string]int // by the name of the exception
}

// question is a call with all that may come of it.
type question struct {
	call
	want   []answer
	sticky stay // see plane.sticky
}

// stay is what a client stays at; zero: he does not.
type stay struct {
	client string
	pool   service.Pool
}

// stayed is by which call a client was seen to stay, and with whom.
type stayed struct {
	call
	server netip.AddrPort
}

// turns are when questions are asked: those of one client that stays one after the
// other, as two at once may find two endpoints.
func turns(questions []question) (turn, of []int) {
	count := map[stay]int{}
	for _, q := range questions {
		turn = append(turn, count[q.sticky])
		if q.sticky != (stay{}) {
			count[q.sticky]++
		}
	}
	for _, q := range questions {
		of = append(of, max(1, count[q.sticky]))
	}
	return turn, of
}

// judge asks all questions in the world of one subject, and returns what the
// oracle does not have. Each is asked until every endpoint of its answers was
// reached, or it is past chance.
func (s *subject) judge(questions []question, t *tally) (findings []finding, err error) {
	j := &judgement{subject: s, questions: questions, reached: map[string]map[answer]bool{}, asked: map[string]int{}, stay: map[stay]stayed{}, wrong: map[int]bool{}}
	if s.stays != nil {
		j.stay = s.stays
	}
	turn, of := turns(questions)
	pending := make([]int, len(questions))
	for i := range pending {
		pending[i] = i
	}
	for round := 0; len(pending) > 0; round++ {
		due := slices.DeleteFunc(slices.Clone(pending), func(i int) bool { return round%of[i] != turn[i] })
		answers, err := s.askAll(questions, due)
		if err != nil {
			return nil, err
		}
		t.calls += len(due)
		for n, i := range due {
			if q := questions[i]; answers[n] == (answer{}) && q.want[0] != answers[n] && j.lost < 3 {
				t.again[j.name+" over "+q.protocol.String()]++ // it stays pending
				j.lost++
				continue
			}
			j.note(i, answers[n])
		}
		pending = slices.DeleteFunc(pending, func(i int) bool {
			if questions[i].sticky != (stay{}) {
				return j.wrong[i] || round+1 >= 3*of[i]
			}
			return j.wrong[i] || j.done(questions[i])
		})
	}
	j.count()
	return j.findings, nil
}

// judgement is what was found so far.
type judgement struct {
	*subject
	questions []question
	reached   map[string]map[answer]bool // by what is called and what may come of it
	asked     map[string]int             // likewise
	stay      map[stay]stayed            // where clients stay
	wrong     map[int]bool
	lost      int // calls that nobody answered though somebody should
	findings  []finding
}

func (q question) key() string { return fmt.Sprint(q.protocol, q.to, q.want) }

// note judges one answer.
func (j *judgement) note(i int, got answer) {
	q := j.questions[i]
	j.asked[q.key()]++
	if j.reached[q.key()] == nil {
		j.reached[q.key()] = map[answer]bool{}
	}
	j.reached[q.key()][got] = true
	complaint := ""
	if !slices.Contains(q.want, got) {
		complaint = got.String()
	} else if q.sticky != (stay{}) {
		if before, ok := j.stay[q.sticky]; ok && before.server != got.server {
			complaint = fmt.Sprintf("%s, and before %s, though a client stays", got, before.server)
		}
		j.stay[q.sticky] = stayed{q.call, got.server}
	}
	if complaint != "" && !j.wrong[i] {
		j.wrong[i] = true
		j.findings = append(j.findings, finding{j.name, q.call, got, complaint, slices.Contains(q.want, got), q.want})
	}
}

// done tells whether all endpoints were reached, or those that were not are past
// chance.
func (j *judgement) done(q question) bool {
	return len(j.reached[q.key()]) >= len(q.want) || j.asked[q.key()] > 30*len(q.want)
}

// count complains of endpoints that nobody reached.
func (j *judgement) count() {
	for i, q := range j.questions {
		if n := len(j.reached[q.key()]); n < len(q.want) && q.sticky == (stay{}) && !j.wrong[i] {
			got := fmt.Sprintf("only %d of %d after %d calls: %v", n, len(q.want), j.asked[q.key()], slices.Collect(maps.Keys(j.reached[q.key()])))
			j.findings = append(j.findings, finding{j.name, q.call, answer{}, got, false, q.want})
		}
	}
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
