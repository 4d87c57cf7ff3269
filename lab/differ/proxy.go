package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/model"
)

// proxy is a kube-proxy that serves the node of a world.
type proxy struct {
	*api
	world   *world
	command *exec.Cmd
	log     string // path
	ended   chan struct{}
	changes chan struct{} // of the kernel's tables; one for any number
	deaf    chan error    // why no more changes are told of
	watch   *netlink.Conn
	settled int // how often it was waited for
}

// config is what is configured of both alike.
type config struct {
	masqueradeAll     bool
	nodePortAddresses []string
}

// configs are those that are compared.
func configs() []config {
	return []config{{}, {masqueradeAll: true}, {nodePortAddresses: []string{"192.0.2.0/24", "2001:db8:1::/64"}}}
}

// startProxy starts one. What it writes goes into a directory.
func startProxy(program, dir string, w *world, c config) (p *proxy, err error) {
	p = &proxy{world: w, log: filepath.Join(dir, "kube-proxy.log"), ended: make(chan struct{}), changes: make(chan struct{}, 1), deaf: make(chan error, 1)}
	var url string
	if p.api, url, err = newAPI(w.spaces[atNode]); err != nil {
		return nil, err
	}
	for _, node := range nodes() {
		p.put(node)
	}
	p.put(serviceCIDR())
	config, err := yaml.Marshal(c.proxy())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kube-proxy.yaml"), config, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("write kube-proxy's configuration: %w", err)
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("make kube-proxy's log: %w", err)
	}
	defer log.Close()
	p.command = exec.Command(program, "--config="+filepath.Join(dir, "kube-proxy.yaml"), "--master="+url, "--v=2")
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err = w.spaces[atNode].do(func() (err error) {
		// NFNLGRP_NFTABLES tells of each change.
		p.watch, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
		return err
	})
	if err == nil {
		err = p.start()
	}
	if err != nil {
		return nil, fmt.Errorf("start kube-proxy: %w", err)
	}
	go p.hear()
	return p, nil
}

// start keeps the thread that starts kube-proxy until that has ended: it would be
// killed with it.
func (p *proxy) start() error {
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		err := p.world.spaces[atNode].do(func() error {
			if err := p.command.Start(); err != nil {
				return err
			}
			started <- nil
			_ = p.command.Wait()
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	return <-started
}

// hear notes that tables changed, whatever it was. A queue that overflows means
// that they did.
func (p *proxy) hear() {
	for {
		if _, err := p.watch.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			p.deaf <- err
			return
		}
		select {
		case p.changes <- struct{}{}:
		default:
		}
	}
}

func (p *proxy) close() {
	_ = p.command.Process.Signal(unix.SIGTERM)
	<-p.ended
	_ = p.watch.Close()
	p.api.close()
}

// proxy is kube-proxy's configuration. It leaves the machine's own limits alone:
// they cannot be written from a namespace.
func (c config) proxy() map[string]any {
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             "nftables",
		"clusterCIDR":      "10.244.0.0/16,fd00:10:244::/60",
		"detectLocalMode":  "ClusterCIDR",
		"hostnameOverride": self,
		"oomScoreAdj":      0,
		"nftables":         map[string]any{"minSyncPeriod": "10ms", "masqueradeAll": c.masqueradeAll},

		"nodePortAddresses": c.nodePortAddresses,
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0,
			"tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s", "udpTimeout": "0s", "udpStreamTimeout": "0s",
		},
	}
}

// errProxy says that kube-proxy does not follow.
var errProxy = errors.New("kube-proxy does not follow")

// errLate says that it has not followed in time.
var errLate = fmt.Errorf("%w in time", errProxy)

// settle waits until kube-proxy has carried out all that was put before. It puts
// a Service and its endpoints last, whose port and whose endpoints' port are
// others each time: when it answers by both, in both families, the objects of
// both watches have arrived and are in the kernel.
func (p *proxy) settle(ctx context.Context) error {
	p.settled++
	number := uint16(1 + p.settled%60000)
	target := targetPorts()[p.settled%len(targetPorts())]
	p.put(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "differ", Name: "settled"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: settledAt()[0].String(), ClusterIPs: []string{settledAt()[0].String(), settledAt()[1].String()},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports:      []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: int32(number)}},
		},
	})
	for _, family := range model.Families {
		p.put(&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "differ", Name: "settled-" + family.String(), Labels: map[string]string{discoveryv1.LabelServiceName: "settled"},
			},
			AddressType: addressTypes[family],
			Ports:       []discoveryv1.EndpointPort{{Name: new(string), Protocol: new(corev1.ProtocolTCP), Port: new(int32(target))}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{podAt(0, 0)[family].String()}}},
		})
	}
	node := clients()[0]
	var calls []call
	for _, family := range model.Families {
		calls = append(calls, call{&node, model.TCP, netip.AddrPortFrom(settledAt()[family], number)})
	}
	return p.until(ctx, "carried out the state before", calls, func(a answer) bool { return a.server.Port() == target })
}

// until calls from the node until each answer is as it should be, whenever tables
// have changed, and at once where there was none: on a machine that is busy it may
// have been late.
func (p *proxy) until(ctx context.Context, what string, calls []call, good func(answer) bool) error {
	return p.within(ctx, time.Minute, what, calls, good)
}

// within is until, with another limit than a minute.
func (p *proxy) within(ctx context.Context, limit time.Duration, what string, calls []call, good func(answer) bool) error {
	timeout := time.After(limit)
	for {
		answers, err := p.world.spaces[atNode].ask(calls, func(int) bool { return true })
		if err != nil {
			return err
		}
		bad := slices.DeleteFunc(answers, good)
		if len(bad) == 0 {
			return nil
		}
		again := make(chan struct{})
		if slices.Contains(bad, answer{}) {
			close(again)
		}
		select {
		case <-p.changes:
		case <-again:
		case err := <-p.deaf:
			return fmt.Errorf("listen to changes of tables: %w", err)
		case <-p.ended:
			return fmt.Errorf("%w: it has ended; see %s", errProxy, p.log)
		case <-timeout:
			return fmt.Errorf("%w: after %v it has not %s; see %s", errLate, limit, what, p.log)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// locate has kube-proxy learn the zone of its node, by changing it twice. What
// the Node says when kube-proxy starts it may miss: it begins to watch, and only
// then says who is to be told (NewNodeTopologyConfig and RegisterEventHandler in
// cmd/kube-proxy/app/server.go). If the first event is faster, hints for zones are
// ignored until the zone is another one: it remembers what it told nobody, and
// skips what is the same (handleNodeEvent in pkg/proxy/config/config.go). So the
// Node goes to the other zone and comes back, until that is heard.
func (p *proxy) locate(ctx context.Context) error {
	const other = "elsewhere"
	at, node := clusterIPs(slots, 0)[0], clients()[0]
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "differ", Name: "located"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: at.String(), ClusterIPs: []string{at.String()},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "differ", Name: "located", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new(string), Protocol: new(corev1.ProtocolTCP), Port: new(int32(targetPorts()[0]))}},
	}
	self := nodes()[0]
	zones := []string{self.Labels[corev1.LabelTopologyZone], other}
	for pod, zone := range zones {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{podAt(0, pod)[0].String()}, Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}},
		})
	}
	p.put(s)
	p.put(slice)
	calls := slices.Repeat([]call{{&node, model.TCP, netip.AddrPortFrom(at, 80)}}, 12)
	in := func(zone string) *corev1.Node {
		node := self.DeepCopy()
		node.Labels[corev1.LabelTopologyZone] = zone
		return node
	}
	for _, pod := range []int{1, 0} {
		err := errLate
		for heard := 0; errors.Is(err, errLate) && heard < 12; heard++ {
			if heard > 0 {
				p.put(in(zones[1-pod]))
			}
			p.put(in(zones[pod]))
			err = p.within(ctx, 5*time.Second, "learned the zone of its node", calls, func(a answer) bool { return a.server.Addr() == podAt(0, pod)[0] })
		}
		if err != nil {
			return err
		}
	}
	p.remove(slice)
	p.remove(s)
	return nil
}

// settledAt are the addresses of that Service.
func settledAt() pair { return both("10.96.255.250", "fd96::ffff") }

var addressTypes = [...]discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
