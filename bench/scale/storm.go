package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/bench/apiserver"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// storm is something that happens to all agents at once, and what they ask then.
type storm struct {
	Name     string
	Connects apiserver.Rate
	Resumes  apiserver.Rate // watches that go on where they were
	Lists    apiserver.Rate // of all objects of a resource
	Back     time.Duration  // until all watches are there
}

// watchesOfAgent is how many an agent has.
const watchesOfAgent = 9

// mostNodes is how many nodes there are in storms: 5,000 agents that each know 5,000 would
// take more memory than a machine has. Agents keep the pace of as many as they are.
const mostNodes = 1000

// storms simulates agents: to each belongs a client and all that it watches, of
// the code that the agent has, but no kernel. There are as many nodes as agents, or
// mostNodes, with little in them.
func storms(ctx context.Context, agents int) ([]storm, error) {
	s, err := apiserver.New()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(writeCredentials(s.Authority), loopbackUp(), fill(s, min(agents, mostNodes))); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	start := func() error {
		for range agents {
			client, err := kube.Connect(kube.Options{Servers: []string{s.Address.String()}, KubeletConfigs: []string{"/none"}})
			if err != nil {
				return err
			}
			source := client.Source()
			source.Among(agents)
			running.Go(func() { _ = source.Run(ctx, &model.Feed{}) })
		}
		return nil
	}
	var all []storm
	for _, next := range []struct {
		name string
		do   func() error
	}{
		{"all start at once", start},
		{"all connections break", func() error { s.Drop(); return nil }},
		{"and watches are answered 410 Gone", func() error { s.Forget(); s.Drop(); return nil }},
		{"API server away for 10 s", func() error {
			s.End()
			time.Sleep(10 * time.Second)
			return s.Listen()
		}},
	} {
		s.Requests.Reset()
		began := time.Now()
		if err := next.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", next.name, err)
		}
		if err := complete(ctx, s, agents*watchesOfAgent); err != nil {
			return nil, fmt.Errorf("%s: %w", next.name, err)
		}
		all = append(all, storm{
			Name: next.name, Back: time.Since(began),
			Connects: s.Requests.Of("connect"), Lists: s.Requests.Of("watch list", "list"),
			Resumes: s.Requests.Of("resume"),
		})
	}
	return all, nil
}

// fill puts in what is small.
func fill(s *apiserver.Server, nodes int) error {
	err := errors.Join(
		s.Put(apiserver.Slices, serverSlice(s.Address)),
		s.Put(apiserver.Networks, &v1alpha1.Network{TypeMeta: apiserver.TypeOf("Network"), ObjectMeta: objectMeta(v1alpha1.NetworkName)}))
	for i := 0; i < nodes && err == nil; i++ {
		err = s.Put(apiserver.Nodes, &corev1.Node{
			TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: objectMeta(nodeName(i)),
			Spec: corev1.NodeSpec{PodCIDRs: []string{podRanges(i)[0].String()}},
		})
	}
	return err
}

// complete waits until so many watches are open, and stay so for a moment. How long it
// waits grows with their number.
func complete(ctx context.Context, s *apiserver.Server, watches int) error {
	limit := max(3*time.Minute, time.Duration(watches)*20*time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	since := time.Time{}
	for {
		switch open := s.Watches.Load(); {
		case open != int64(watches):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > 2*time.Second:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d watches of %d are there after %s", s.Watches.Load(), watches, limit)
		case <-time.After(50 * time.Millisecond): // so that it costs nothing
		}
	}
}
