package lab

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/lab/world"
)

// binDir is where machines find the programs of the lab.
const binDir = "/usr/local/lib/fairlead-lab"

// servicePath is the PATH of services: containerd looks for its shim and runc,
// the kubelet for mount, kube-proxy for nft.
const servicePath = "PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// etcDir is the directory of the host whose content is a machine's
// /etc/kubernetes, and some other files of its /etc.
func (l *Lab) etcDir(machine string) string { return filepath.Join(l.dir, "etc", machine) }

func (l *Lab) binaries() world.Bind {
	return world.Bind{Source: l.state.Binaries, Target: binDir, ReadOnly: true}
}

// apiServer returns the URL of the API server inside the lab.
func (l *Lab) apiServer() string {
	return "https://" + net.JoinHostPort(l.Addresses(Control)[0].String(), strconv.Itoa(apiPort))
}

// control is the machine of the control plane.
func (l *Lab) control() world.Machine {
	family := l.state.Config.Family
	return world.Machine{
		Name:     Control,
		Ports:    []world.Port{{Segment: controlSegment, Interface: "eth0", Addresses: family.inside(0, 10)}},
		Gateways: addresses(family.inside(0, 1)),
		Binds: append(l.etcFiles(Control), l.binaries(), l.volume(Control, "/var/lib/etcd"),
			world.Bind{Source: filepath.Dir(l.state.Fairlead), Target: ownDir, ReadOnly: true}),
		Tmpfs: []string{"/run", "/tmp"},
		Services: []world.Service{
			l.service("etcd", map[string]string{"data-dir": "/var/lib/etcd"}),
			l.service("kube-apiserver", l.apiServerFlags()),
			l.service("kube-controller-manager", l.controllerManagerFlags()),
			l.service("kube-scheduler", map[string]string{
				"kubeconfig":                 "/etc/kubernetes/scheduler.conf",
				"authentication-kubeconfig":  "/etc/kubernetes/scheduler.conf",
				"authorization-kubeconfig":   "/etc/kubernetes/scheduler.conf",
				"authentication-skip-lookup": "true",
				"client-ca-file":             "/etc/kubernetes/pki/ca.crt",
				"leader-elect":               "false",
			}),
		},
	}
}

// service is a component of Kubernetes with its flags.
func (l *Lab) service(name string, flags map[string]string) world.Service {
	argv := []string{binDir + "/" + name}
	for _, key := range sortedKeys(flags) {
		argv = append(argv, "--"+key+"="+flags[key])
	}
	return world.Service{Name: name, Argv: argv, Env: []string{servicePath}}
}

func (l *Lab) apiServerFlags() map[string]string {
	const pki = "/etc/kubernetes/pki/"
	family := l.state.Config.Family
	bind := "0.0.0.0"
	if family.V6() {
		bind = "::"
	}
	return map[string]string{
		"advertise-address": l.Addresses(Control)[0].String(),
		"bind-address":      bind,
		"secure-port":       strconv.Itoa(apiPort),
		// Else a stop waits for clients to end their watches.
		"shutdown-watch-termination-grace-period": "1s",
		"etcd-servers":                       "http://127.0.0.1:2379",
		"allow-privileged":                   "true",
		"authorization-mode":                 "Node,RBAC",
		"enable-admission-plugins":           "NodeRestriction",
		"client-ca-file":                     pki + "ca.crt",
		"tls-cert-file":                      pki + "apiserver.crt",
		"tls-private-key-file":               pki + "apiserver.key",
		"kubelet-certificate-authority":      pki + "ca.crt",
		"kubelet-client-certificate":         pki + "apiserver-kubelet-client.crt",
		"kubelet-client-key":                 pki + "apiserver-kubelet-client.key",
		"kubelet-preferred-address-types":    "InternalIP", // nobody resolves the names of nodes
		"service-account-issuer":             "https://kubernetes.default.svc.cluster.local",
		"service-account-key-file":           pki + "sa.key",
		"service-account-signing-key-file":   pki + "sa.key",
		"service-cluster-ip-range":           strings.Join(family.pickText(serviceCIDR4, serviceCIDR6), ","),
		"requestheader-client-ca-file":       pki + "ca.crt",
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"proxy-client-cert-file":             pki + "front-proxy-client.crt",
		"proxy-client-key-file":              pki + "front-proxy-client.key",
	}
}

func (l *Lab) controllerManagerFlags() map[string]string {
	const pki = "/etc/kubernetes/pki/"
	const conf = "/etc/kubernetes/controller-manager.conf"
	family := l.state.Config.Family
	flags := map[string]string{
		"kubeconfig":                conf,
		"authentication-kubeconfig": conf,
		"authorization-kubeconfig":  conf,
		"leader-elect":              "false",
		"client-ca-file":            pki + "ca.crt",
		// The roles for the lookup are not there yet when the API server is new.
		"authentication-skip-lookup":      "true",
		"use-service-account-credentials": "true",
		"controllers":                     "*,bootstrap-signer-controller,token-cleaner-controller",
		// The defaults spread the start of the controllers over ten seconds.
		"kube-api-qps":                     "200",
		"kube-api-burst":                   "400",
		"allocate-node-cidrs":              "true",
		"cluster-cidr":                     strings.Join(family.pickText(podCIDR4, podCIDR6), ","),
		"service-cluster-ip-range":         strings.Join(family.pickText(serviceCIDR4, serviceCIDR6), ","),
		"root-ca-file":                     pki + "ca.crt",
		"service-account-private-key-file": pki + "sa.key",
		"cluster-signing-cert-file":        pki + "ca.crt",
		"cluster-signing-key-file":         pki + "ca.key",
	}
	// The general mask flag is refused with two families, the others with one.
	switch family {
	case IPv4:
		flags["node-cidr-mask-size"] = "24"
	case IPv6:
		flags["node-cidr-mask-size"] = "64"
	default:
		flags["node-cidr-mask-size-ipv4"] = "24"
		flags["node-cidr-mask-size-ipv6"] = "64"
	}
	return flags
}

// writeControlFiles writes keys, certificates and kubeconfigs of the control
// plane.
func (l *Lab) writeControlFiles(ca *authority) error {
	files := map[string][]byte{"pki/ca.crt": ca.certPEM, "pki/ca.key": ca.keyPEM}
	var err error
	if _, files["pki/sa.key"], err = newKey(); err != nil {
		return err
	}
	family := l.state.Config.Family
	server := identity{
		user:  "kube-apiserver",
		names: []string{"localhost", Control, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		addrs: append(l.Addresses(Control), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()),
	}
	for _, address := range family.pickText("10.96.0.1", "fd00:10:96::1") {
		server.addrs = append(server.addrs, netip.MustParseAddr(address))
	}
	for file, who := range map[string]identity{
		"apiserver":                server,
		"apiserver-kubelet-client": {user: "kube-apiserver-kubelet-client", group: "system:masters"},
		"front-proxy-client":       {user: "front-proxy-client"},
	} {
		files["pki/"+file+".crt"], files["pki/"+file+".key"], err = ca.issue(who)
		if err != nil {
			return err
		}
	}
	for file, user := range map[string]string{
		"controller-manager.conf": "system:kube-controller-manager",
		"scheduler.conf":          "system:kube-scheduler",
	} {
		if files[file], err = ca.kubeconfig(l.apiServer(), identity{user: user}); err != nil {
			return err
		}
	}
	return l.writeEtc(Control, files)
}

// writeKubeconfig writes the kubeconfig of the lab's users.
func (l *Lab) writeKubeconfig(ca *authority) error {
	admin, err := ca.kubeconfig(fmt.Sprintf("https://127.0.0.1:%d", l.state.Port), identity{user: "lab-admin", group: "system:masters"})
	if err != nil {
		return err
	}
	return writeFile(l.Kubeconfig(), admin)
}
