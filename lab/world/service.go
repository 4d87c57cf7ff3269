package world

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// minimalPath is the PATH of services.
const minimalPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// stopGrace is how long a service may take to end before it is killed.
const stopGrace = 10 * time.Second

// ServiceState is what a service does now.
type ServiceState struct {
	Name     string
	PID      int    // 0 unless running
	Stopped  bool   // by StopService
	Restarts int    // starts after an end that nobody asked for
	LastExit string // why it last ended or could not start, "" if it never did
}

// service keeps one process running. A stop ends only this process: what a
// container runtime has started stays, as on a real machine.
type service struct {
	spec Service
	log  *os.Root // directory of logs

	mu      sync.Mutex
	state   ServiceState
	active  bool               // between the decision to start and the end
	stop    context.CancelFunc // ends the process or the wait for the next one
	changed chan struct{}      // closed and replaced at each change of state
}

func newService(spec Service, log *os.Root) *service {
	return &service{spec: spec, log: log, state: ServiceState{Name: spec.Name}, changed: make(chan struct{})}
}

func (s *service) snapshot() ServiceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *service) update(f func(*ServiceState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
	close(s.changed)
	s.changed = make(chan struct{})
}

// set starts or stops the service and waits until it is so. A start that fails
// is an error, and is tried again all the same.
func (s *service) set(on bool) error {
	s.update(func(st *ServiceState) {
		if on && st.Stopped {
			st.LastExit = ""
		}
		st.Stopped = !on
		if !on && s.stop != nil {
			s.stop()
		}
	})
	for {
		s.mu.Lock()
		st, active, changed := s.state, s.active, s.changed
		s.mu.Unlock()
		switch {
		case on && st.PID != 0, !on && !active:
			return nil
		case on && st.LastExit != "":
			return fmt.Errorf("service %s: %s", s.spec.Name, st.LastExit)
		}
		<-changed
	}
}

// Run keeps the service running until ctx ends, then ends it.
func (s *service) Run(ctx context.Context) error {
	delay := time.Duration(s.spec.RestartDelay) * time.Millisecond
	if delay == 0 {
		delay = 500 * time.Millisecond
	}
	for ctx.Err() == nil {
		s.mu.Lock()
		stopped, changed := s.state.Stopped, s.changed
		run, stop := context.WithCancel(ctx)
		s.stop, s.active = stop, !stopped
		s.mu.Unlock()
		if stopped {
			stop()
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		err := s.once(run)
		exit := "exit status 0"
		if err != nil {
			exit = err.Error()
		}
		s.update(func(st *ServiceState) {
			s.active = false
			st.PID, st.LastExit = 0, exit
			if !st.Stopped && ctx.Err() == nil {
				st.Restarts++
			}
		})
		select {
		case <-time.After(delay):
		case <-run.Done():
		}
		stop()
	}
	return nil
}

// once runs the process to its end.
func (s *service) once(ctx context.Context) error {
	log, err := s.log.OpenFile(s.spec.Name+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.spec.Argv[0], s.spec.Argv[1:]...)
	cmd.Env = append([]string{"PATH=" + minimalPath, "HOME=/root"}, s.spec.Env...)
	cmd.Dir = s.spec.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	s.update(func(st *ServiceState) { st.PID = cmd.Process.Pid })
	return cmd.Wait()
}
