package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/bench/apiserver"
)

// Of so many Ingresses there is one with TLS, and one with WebSockets, of which no
// pod ends; so many share a Service.
const (
	secureEach = 10
	socketEach = 50
	sharing    = 10
)

// world is a cluster without nodes: an API server, and pods on loopback.
type world struct {
	*changing
	api  *apiserver.Server
	pods *pods
	next int // address of a pod
}

func newWorld(c *changing) (*world, error) {
	pods, err := newPods()
	if err != nil {
		return nil, err
	}
	w := &world{changing: c, pods: pods}
	if w.api, err = apiserver.New(); err != nil {
		return nil, err
	}
	err = errors.Join(
		w.api.Put(apiserver.Networks, &v1alpha1.Network{TypeMeta: apiserver.TypeOf("Network"), ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.NetworkName}}),
		w.api.Put(apiserver.Classes, &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: networkingv1.IngressClassSpec{Controller: "fairlead.io/ingress"}}))
	for i := 0; i < c.routes && err == nil; i++ {
		if i%sharing == 0 {
			err = w.addService(i / sharing)
		}
		err = errors.Join(err, w.api.Put(apiserver.Ingresses, ingressOf(i, i/sharing)))
		if i%secureEach == 0 {
			err = errors.Join(err, w.rotate(i, 1))
		}
	}
	w.api.Settle()
	return w, err
}

func (w *world) close() {
	w.api.End()
	w.pods.close()
}

func hostOf(i int) string    { return fmt.Sprintf("host-%d.example.org", i) }
func serviceOf(i int) string { return fmt.Sprintf("service-%d", i) }

const namespace = "bench"

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1_750_000_000, 0))}
}

// ingressOf is one of a host, and leads to a Service.
func ingressOf(i, service int) *networkingv1.Ingress {
	exact, prefix, class := networkingv1.PathTypeExact, networkingv1.PathTypePrefix, "fairlead"
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: serviceOf(service), Port: networkingv1.ServiceBackendPort{Name: "http"}}}
	o := &networkingv1.Ingress{ObjectMeta: named(fmt.Sprintf("ingress-%d", i)), Spec: networkingv1.IngressSpec{IngressClassName: &class}}
	o.Annotations = map[string]string{"nginx.ingress.kubernetes.io/proxy-body-size": "8m", "nginx.ingress.kubernetes.io/ssl-redirect": "false"}
	rule := networkingv1.IngressRule{Host: hostOf(i)}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
		{Path: "/", PathType: &prefix, Backend: backend}, {Path: "/status", PathType: &exact, Backend: backend},
	}}
	o.Spec.Rules = []networkingv1.IngressRule{rule}
	if i%secureEach == 0 {
		o.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{hostOf(i)}, SecretName: fmt.Sprintf("tls-%d", i)}}
	}
	return o
}

// addService makes one with two pods.
func (w *world) addService(i int) error {
	port := corev1.ServicePort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}
	o := &corev1.Service{ObjectMeta: named(serviceOf(i)), Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.%d.%d", i>>8, i&255), Ports: []corev1.ServicePort{port}}}
	return errors.Join(w.api.Put(apiserver.Services, o), w.point(i, []netip.Addr{w.newPod(i), w.newPod(i)}, nil))
}

// newPod is one more of a Service.
func (w *world) newPod(service int) netip.Addr {
	w.next++
	at := podAt(w.next)
	w.pods.add(at, service)
	return at
}

// point says where a Service is.
func (w *world) point(service int, ready, leaving []netip.Addr) error {
	name, protocol, port := "http", corev1.ProtocolTCP, int32(w.pods.port)
	o := &discoveryv1.EndpointSlice{
		ObjectMeta: named(serviceOf(service)), AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
	o.Labels = map[string]string{discoveryv1.LabelServiceName: serviceOf(service)}
	add := func(all []netip.Addr, ends bool) {
		yes, no := true, false
		for _, at := range all {
			conditions := discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no}
			if ends {
				conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
			}
			o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{at.String()}, Conditions: conditions})
		}
	}
	add(ready, false)
	add(leaving, true)
	return w.api.Put(apiserver.Slices, o)
}

// rotate gives a host a certificate of some number.
func (w *world) rotate(host int, serial int64) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{hostOf(host)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return w.api.Put(apiserver.Secrets, &corev1.Secret{ObjectMeta: named(fmt.Sprintf("tls-%d", host)), Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}})
}
