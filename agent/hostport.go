package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/fairlead-net/fairlead/model"
)

// mapping is a port as the runtime gives it for the capability portMappings.
type mapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// hostPorts reads the ports of the node that are to lead to the pod. Errors are
// in CNI's words and name the entry.
func hostPorts(config []byte) ([]model.HostPort, error) {
	var conf struct {
		RuntimeConfig struct {
			PortMappings []json.RawMessage `json:"portMappings"`
		} `json:"runtimeConfig"`
	}
	if len(config) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "cannot read runtimeConfig.portMappings", err.Error())
	}
	var ports []model.HostPort
	for i, text := range conf.RuntimeConfig.PortMappings {
		port, err := hostPort(text)
		if err != nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("portMappings[%d], %s, cannot be met", i, text), err.Error())
		}
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func hostPort(text []byte) (port model.HostPort, err error) {
	m := mapping{Protocol: "tcp"}
	if err := json.Unmarshal(text, &m); err != nil {
		return port, err
	}
	if m.HostPort < 1 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return port, fmt.Errorf("hostPort and containerPort must be between 1 and 65535")
	}
	port.Port, port.PodPort = uint16(m.HostPort), uint16(m.ContainerPort)
	if port.Protocol, err = model.ParseProtocol(m.Protocol); err != nil {
		return port, fmt.Errorf("protocol: %w", err)
	}
	if m.HostIP != "" {
		addr, err := netip.ParseAddr(m.HostIP)
		if err != nil || addr.Zone() != "" {
			return port, fmt.Errorf("hostIP: %q is not an address", m.HostIP)
		}
		port.HostIP = addr.Unmap()
	}
	return port, nil
}

// overlap tells whether a packet could be for both.
func overlap(a, b model.HostPort) bool {
	if a.Protocol != b.Protocol || a.Port != b.Port {
		return false
	}
	if !a.HostIP.IsValid() || !b.HostIP.IsValid() || a.HostIP == b.HostIP {
		return true
	}
	// 0.0.0.0 is every address of its family, as is ::.
	return model.FamilyOf(a.HostIP) == model.FamilyOf(b.HostIP) && (a.HostIP.IsUnspecified() || b.HostIP.IsUnspecified())
}

// portTaken is that a pod cannot have a port of the node.
type portTaken struct {
	port   model.HostPort
	holder *model.Attachment
}

func (p portTaken) Error() string {
	return fmt.Sprintf("host port %s of this node is held by %s", p.port, podName(p.holder))
}

func podName(a *model.Attachment) string {
	if a.Pod == (model.PodKey{}) {
		return "container " + a.ContainerID
	}
	return "pod " + a.Pod.String()
}

// claimPorts returns a portTaken if another pod holds one of the ports. The
// caller holds the lock.
func (a *attacher) claimPorts(key model.AttachmentKey, ports []model.HostPort) error {
	if len(ports) == 0 {
		return nil
	}
	for holder := range a.addresses.All() {
		if holder.AttachmentKey == key {
			continue
		}
		for _, held := range holder.HostPorts {
			for _, port := range ports {
				if overlap(held, port) {
					return portTaken{port, holder}
				}
			}
		}
	}
	return nil
}
