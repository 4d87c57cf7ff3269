package agent

import "fmt"

// checks are what must have happened before pods can be connected, in order.
// Once they have, they stay so: a node that fails later keeps its pods, and
// says what is wrong in its status, rather than have them evicted.
type checks []check

type check struct {
	name string
	done <-chan struct{} // closed when it has
	why  func() string   // what it waits for
}

func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// missing is what is waited for, "" if nothing.
func (c checks) missing() string {
	for _, check := range c {
		if !isDone(check.done) {
			return fmt.Sprintf("%s: %s", check.name, check.why())
		}
	}
	return ""
}

// next is closed when the check that is waited for is done; nil if none is.
func (c checks) next() <-chan struct{} {
	for _, check := range c {
		if !isDone(check.done) {
			return check.done
		}
	}
	return nil
}

// report has a line for each check.
func (c checks) report() (text string, ready bool) {
	ready = true
	for _, check := range c {
		if isDone(check.done) {
			text += "ok       " + check.name + "\n"
			continue
		}
		ready = false
		text += "waiting  " + check.name + ": " + check.why() + "\n"
	}
	return text, ready
}
