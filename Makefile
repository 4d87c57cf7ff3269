# Fairlead. Run as root on Linux: the lab and the kernel tests make namespaces.
#
#   make demo       a cluster of three nodes on this machine, and a tour of it
#   make demo-down  takes it away
#   make test       everything: style, unit, kernel and cluster tests
#   make test-kernels  the kernel tests on Debian's other kernels, in QEMU
#   make build      bin/fairlead and bin/fairlead-cni, for this machine
#   make image      bin/fairlead-image.tar, an OCI image for amd64 and arm64, without Docker
#   make bench      the benchmarks
#   make e2e        upstream's own tests of the network, in a cluster of six nodes
#   make policyapi  upstream's conformance tests of ClusterNetworkPolicy
#   make differ     random Services, compared with those of kube-proxy
#   make soak       two hours of churn and faults, and what they leave behind
#   make generate   the CRDs, deepcopy functions and deploy/fairlead.yaml

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED ?= 0

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.1.0-dev)
LDFLAGS  := -s -w -X github.com/fairlead-net/fairlead/cli.Version=$(VERSION)
# What the lab needs of Debian, and the race detector of C.
PACKAGES := runc busybox-static tshark iproute2 mount nftables iptables gcc libc6-dev curl openssl
# Programs in the images of Kubernetes' own tests.
E2EPACKAGES := curl bind9-dnsutils wget conntrack netcat-openbsd

step = @printf '\n== %s (%s)\n' "$(1)" "$$(date +%T)"

.PHONY: demo demo-down test test-kernels build image bench e2e policyapi differ soak generate deps

demo: deps build
	@bin/fairlead demo

demo-down: build
	@bin/fairlead demo --down

build:
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

image: build
	bin/fairlead image --version $(VERSION) --out bin/fairlead-image.tar

test: PACKAGES += $(E2EPACKAGES)
test: deps bin/promtool
	$(call step,gofmt, vet, staticcheck)
	@unformatted="$$(gofmt -l .)"; [ -z "$$unformatted" ] || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	$(call step,builds for amd64 and arm64)
	GOARCH=amd64 go build -trimpath -o /dev/null ./cmd/fairlead
	GOARCH=arm64 go build -trimpath -o /dev/null ./cmd/fairlead
	GOARCH=arm64 go build -trimpath -o /dev/null ./cmd/fairlead-cni
	$(call step,unit and kernel tests with the race detector)
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -v '/lab$$')
	$(call step,tests in a real cluster)
	go test -count=1 -timeout 40m -v ./lab
	$(call step,some of the tests of Kubernetes itself)
	go run ./lab/e2e -subset

# The alerts are tried with it. Debian has it in the package of a server, which would start.
bin/promtool:
	@echo "== getting promtool"; mkdir -p bin; into="$$(mktemp -d)"; trap 'rm -r "$$into"' EXIT; chmod 755 "$$into"; cd "$$into"; \
	apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; \
	dpkg-deb -x prometheus_*.deb . && cp usr/bin/promtool $(CURDIR)/bin/

# Of one kernel: make test-kernels KERNELS=6.1. More flags: docs/kernels.md.
test-kernels: PACKAGES += qemu-system-x86 kmod
test-kernels: deps
	go test -count=1 -timeout 45m -parallel $(or $(GUESTS),3) -v ./lab/kernels -kernels $(or $(KERNELS),all)

bench: PACKAGES += nginx-light wrk nghttp2-client
bench: deps
	go test -run '^$$' -bench . ./model ./plan/... ./dataplane/... ./agent ./kube ./servers/udptunnel
	go run ./bench/cni
	go run ./bench/path
	go run ./bench/scale
	go run ./bench/dns --coredns build
	go run ./bench/gateway -runs 1 -during 2s

# Some of them: make e2e E2E="-only 'session affinity'". More flags: docs/e2e.md.
e2e: PACKAGES += $(E2EPACKAGES)
e2e: deps
	go run ./lab/e2e $(E2E)

# Some of them: make policyapi POLICYAPI="-only Priority". More in docs/e2e.md.
policyapi: deps
	go run ./lab/policyapi $(POLICYAPI)

# Of one seed, or some more states: make differ DIFFER="-seed 7 -states 5000". More
# flags: docs/differ.md.
differ: deps
	go run ./lab/differ $(DIFFER)

# For a shorter time, or the order of another run: make soak SOAK=20m SEED=7.
soak: deps
	go run ./lab/soak -time $(or $(SOAK),2h) -seed $(or $(SEED),0)

generate:
	go generate ./...

# Packages that are missing, and nothing else, are installed.
deps:
	@missing=""; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "== installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
