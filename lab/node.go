package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/lab/world"
)

// volume is a directory of the host's disk for what must not lie on the overlay
// root of a machine; it is removed with the machine.
func (l *Lab) volume(machine, target string) world.Bind {
	return world.Bind{Source: filepath.Join(l.world.Disk, machine, "volumes", target), Target: target}
}

// node is the machine of a node: containerd, kubelet and kube-proxy.
func (l *Lab) node(node Node) world.Machine {
	family := l.state.Config.Family
	machine := world.Machine{
		Name: node.Name,
		Ports: []world.Port{{
			Segment: segmentName(node.Segment), Interface: "eth0", Addresses: family.inside(node.Segment, 10+node.Number),
		}},
		Gateways: addresses(family.inside(node.Segment, 1)),
		Binds:    append(l.etcFiles(node.Name), l.binaries()),
		Tmpfs:    []string{"/run", "/tmp"},
		// The kubelet wants these; they are the host's, and shown to it only.
		Sysctls: map[string]string{
			"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
			"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
		},
		Services: []world.Service{
			{Name: "containerd", Argv: []string{binDir + "/containerd", "--config=/etc/kubernetes/containerd.toml"}, Env: []string{servicePath}},
			l.service("kubelet", l.kubeletFlags(node)),
		},
	}
	for _, path := range []string{"/var/lib/containerd", "/var/lib/kubelet", "/var/log"} {
		machine.Binds = append(machine.Binds, l.volume(node.Name, path))
	}
	if l.state.Config.KubeProxy != None {
		machine.Services = append(machine.Services,
			l.service("kube-proxy", map[string]string{"config": "/etc/kubernetes/kube-proxy.yaml"}))
	}
	return machine
}

func (l *Lab) kubeletFlags(node Node) map[string]string {
	var ips []string
	for _, addr := range l.Addresses(node.Name) {
		ips = append(ips, addr.String())
	}
	labels := []string{"fairlead.io/segment=" + segmentName(node.Segment)}
	if node.Zone != "" {
		labels = append(labels, "topology.kubernetes.io/zone="+node.Zone)
	}
	return map[string]string{
		"config":            "/etc/kubernetes/kubelet.yaml",
		"kubeconfig":        "/etc/kubernetes/kubelet.conf",
		"hostname-override": node.Name,
		"node-ip":           strings.Join(ips, ","),
		"node-labels":       strings.Join(labels, ","),
	}
}

// writeNodeFiles writes what a node has in /etc.
func (l *Lab) writeNodeFiles(ca *authority, node Node) error {
	machineID := sha256.Sum256([]byte(l.state.Config.Name + "/" + node.Name))
	files := map[string][]byte{
		"pki/ca.crt":      ca.certPEM,
		"containerd.toml": []byte(containerdConfig),
		"machine-id":      []byte(hex.EncodeToString(machineID[:16]) + "\n"),
	}
	who := identity{
		user: "system:node:" + node.Name, group: "system:nodes",
		names: []string{node.Name}, addrs: l.Addresses(node.Name),
	}
	var err error
	if files["pki/kubelet.crt"], files["pki/kubelet.key"], err = ca.issue(who); err != nil {
		return err
	}
	if files["kubelet.conf"], err = ca.kubeconfig(l.apiServer(), who); err != nil {
		return err
	}
	if files["kube-proxy.conf"], err = ca.kubeconfig(l.apiServer(), identity{user: "system:kube-proxy"}); err != nil {
		return err
	}
	if files["kubelet.yaml"], err = encodeYAML(l.kubeletConfig()); err != nil {
		return err
	}
	if files["kube-proxy.yaml"], err = encodeYAML(l.kubeProxyConfig(node)); err != nil {
		return err
	}
	return l.writeEtc(node.Name, files)
}

// containerdConfig pins what the lab needs and leaves the rest to defaults.
// Scores of the out-of-memory killer stay alone: lowering them needs
// CAP_SYS_RESOURCE, which a host may not give.
const containerdConfig = `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "` + pauseImage + `"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
`

// kubeletConfig is that of a node whose cgroup hierarchy may be of version 1
// and have no controllers, whose disk is the host's, and whose images cannot
// be pulled again once they are removed.
func (l *Lab) kubeletConfig() map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
		},
		"authorization":               map[string]any{"mode": "Webhook"},
		"tlsCertFile":                 "/etc/kubernetes/pki/kubelet.crt",
		"tlsPrivateKeyFile":           "/etc/kubernetes/pki/kubelet.key",
		"containerRuntimeEndpoint":    "unix:///run/containerd/containerd.sock",
		"cgroupDriver":                "cgroupfs",
		"cgroupsPerQOS":               false,
		"enforceNodeAllocatable":      []string{},
		"failCgroupV1":                false,
		"failSwapOn":                  false,
		"oomScoreAdj":                 0,
		"clusterDomain":               "cluster.local",
		"clusterDNS":                  l.state.Config.Family.pickText(dnsAddress4, dnsAddress6),
		"resolvConf":                  "/etc/resolv.conf",
		"nodeStatusUpdateFrequency":   "5s",
		"imageGCHighThresholdPercent": 100,
		"evictionHard": map[string]string{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
		},
		"makeIPTablesUtilChains": false,
	}
}

// kubeProxyConfig leaves the host's connection tracking limits alone: they
// cannot be written from a namespace.
func (l *Lab) kubeProxyConfig(node Node) map[string]any {
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             l.state.Config.KubeProxy,
		"clientConnection": map[string]any{"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
		"clusterCIDR":      strings.Join(l.state.Config.Family.pickText(podCIDR4, podCIDR6), ","),
		"hostnameOverride": node.Name,
		"oomScoreAdj":      0,
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0,
			"tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s", "udpTimeout": "0s", "udpStreamTimeout": "0s",
		},
	}
}

// etcFiles are the binds of a machine's part of /etc. Its own hosts and
// resolv.conf keep the host's out; nobody answers at the name server.
func (l *Lab) etcFiles(machine string) []world.Bind {
	etc := l.etcDir(machine)
	binds := []world.Bind{{Source: etc, Target: "/etc/kubernetes", ReadOnly: true}}
	for _, name := range []string{"hosts", "resolv.conf"} {
		binds = append(binds, world.Bind{Source: filepath.Join(etc, name), Target: "/etc/" + name})
	}
	if machine != Control {
		binds = append(binds, world.Bind{Source: filepath.Join(etc, "machine-id"), Target: "/etc/machine-id"})
	}
	return binds
}

// writeEtc writes the files of etcFiles: those of the argument, hosts and
// resolv.conf.
func (l *Lab) writeEtc(machine string, files map[string][]byte) error {
	hosts := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for _, addr := range l.Addresses(machine) {
		hosts += fmt.Sprintf("%s %s\n", addr, machine)
	}
	var resolve string
	for _, addr := range l.Addresses(Internet) {
		resolve += fmt.Sprintf("nameserver %s\n", addr)
	}
	files["hosts"], files["resolv.conf"] = []byte(hosts), []byte(resolve)
	for _, name := range sortedKeys(files) {
		if err := writeFile(filepath.Join(l.etcDir(machine), name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file that only root may read, and the directories above
// it.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func encodeYAML(value any) ([]byte, error) {
	encoded, err := yaml.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding a configuration: %w", err)
	}
	return encoded, nil
}
