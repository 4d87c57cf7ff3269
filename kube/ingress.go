package kube

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-net/fairlead/model"
)

// Annotations that say something of an Ingress.
const (
	nginxAnnotations = "nginx.ingress.kubernetes.io/"
	// ownAnnotations are those that ingress-nginx does not have.
	ownAnnotations = "fairlead.io/"
	// classAnnotation is how the class was named before there was a field for it.
	classAnnotation = "kubernetes.io/ingress.class"
	// tlsACMEAnnotation asks whoever makes any for certificates.
	tlsACMEAnnotation = "kubernetes.io/tls-acme"
)

// See sparseNodes.
func sparseIngresses() (*sparse[*networkingv1.Ingress, model.IngressKey, *model.HTTPIngress], error) {
	return newSparse(networkingv1.SchemeGroupVersion, &networkingv1.Ingress{}, convertIngress,
		"metadata.creationTimestamp", "metadata.annotations", "spec")
}

// convertIngress reads one. What cannot be understood is left out, with a Problem.
func convertIngress(object *networkingv1.Ingress) converted[model.IngressKey, *model.HTTPIngress] {
	key := model.IngressKey{Namespace: intern(object.Namespace), Name: object.Name}
	ingress := &model.HTTPIngress{IngressKey: key, Created: object.CreationTimestamp.Unix(), Class: intern(object.Annotations[classAnnotation])}
	to := converted[model.IngressKey, *model.HTTPIngress]{key: key, value: ingress}
	wrong := func(field string, err error) {
		to.problems = append(to.problems, notUnderstood("Ingress", &object.ObjectMeta, field, err))
	}
	if object.Spec.IngressClassName != nil {
		ingress.Class = intern(*object.Spec.IngressClassName)
	}
	if backend := object.Spec.DefaultBackend; backend != nil {
		if made, err := convertBackend(backend); err != nil {
			wrong("spec.defaultBackend", err)
		} else {
			ingress.Default = &made
		}
	}
	for i := range object.Spec.Rules {
		rule := &object.Spec.Rules[i]
		made := model.IngressRule{Host: strings.ToLower(rule.Host)}
		if rule.HTTP != nil {
			for j := range rule.HTTP.Paths {
				path, err := convertPath(&rule.HTTP.Paths[j])
				if err != nil {
					wrong(fmt.Sprintf("spec.rules[%d].http.paths[%d]", i, j), err)
					continue
				}
				made.Paths = append(made.Paths, path)
			}
		}
		ingress.Rules = append(ingress.Rules, made)
	}
	for _, tls := range object.Spec.TLS {
		made := model.IngressTLS{Secret: tls.SecretName}
		for _, host := range tls.Hosts {
			made.Hosts = append(made.Hosts, strings.ToLower(host))
		}
		ingress.TLS = append(ingress.TLS, made)
	}
	for name, value := range object.Annotations {
		if strings.HasPrefix(name, nginxAnnotations) || strings.HasPrefix(name, ownAnnotations) || name == tlsACMEAnnotation {
			ingress.Annotations = append(ingress.Annotations, model.Annotation{Key: intern(name), Value: value})
		}
	}
	slices.SortFunc(ingress.Annotations, func(a, b model.Annotation) int { return cmp.Compare(a.Key, b.Key) })
	return to
}

func convertPath(object *networkingv1.HTTPIngressPath) (model.IngressPath, error) {
	backend, err := convertBackend(&object.Backend)
	path := model.IngressPath{Path: object.Path, Backend: backend}
	if err != nil || object.PathType == nil {
		return path, err
	}
	switch *object.PathType {
	case networkingv1.PathTypeExact:
		path.Type = model.PathExact
	case networkingv1.PathTypePrefix:
		path.Type = model.PathPrefix
	case networkingv1.PathTypeImplementationSpecific:
	default:
		return path, fmt.Errorf("pathType %s is none that Kubernetes has", *object.PathType)
	}
	return path, nil
}

func convertBackend(object *networkingv1.IngressBackend) (model.IngressBackend, error) {
	switch {
	case object.Service != nil:
		port := object.Service.Port
		if port.Number < 0 || port.Number > 65535 || port.Number == 0 && port.Name == "" {
			return model.IngressBackend{}, fmt.Errorf("the port of Service %s: want its name, or a number from 1 to 65535", object.Service.Name)
		}
		return model.IngressBackend{Service: object.Service.Name, Port: uint16(port.Number), PortName: port.Name}, nil
	case object.Resource != nil:
		return model.IngressBackend{Resource: object.Resource.Kind + "/" + object.Resource.Name}, nil
	}
	return model.IngressBackend{}, errors.New("the backend has no Service")
}

func convertIngressClass(object *networkingv1.IngressClass) converted[string, *model.IngressClass] {
	name := intern(object.Name)
	return converted[string, *model.IngressClass]{key: name, value: &model.IngressClass{
		Name: name, Controller: object.Spec.Controller,
		Default: object.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true",
	}}
}
