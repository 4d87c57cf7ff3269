package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
)

// verbs carries out what the CNI plugin asks.
type verbs struct {
	attacher *attacher
	node     netnsID       // the node's own namespace
	starting func() string // what is missing until pods can be connected, "" if nothing
	metrics  *metrics
	log      *slog.Logger
}

// notAsAdded is the code of a CHECK that found a difference; codes from 100 are
// the plugin's own (CNI specification, section 5).
const notAsAdded uint = 100

// Answer carries out one request. netns is nil if none came with it.
func (v *verbs) Answer(ctx context.Context, request *cni.Request, netns *os.File) *cni.Reply {
	began := time.Now()
	result, err := v.dispatch(ctx, request, netns)
	v.metrics.answered(request.Command, err, time.Since(began))
	log := v.log.With("command", request.Command, "container", request.ContainerID,
		"args", request.Args, "took", time.Since(began).Round(10*time.Microsecond))
	if err != nil {
		log.Warn("a request of the container runtime failed", "error", err)
		return refusal(err)
	}
	if request.Command == "ADD" || request.Command == "DEL" {
		log.Info("done for the container runtime")
	}
	return &cni.Reply{Version: cni.Version, Result: result}
}

func (v *verbs) dispatch(ctx context.Context, request *cni.Request, netns *os.File) (*types100.Result, error) {
	key := model.AttachmentKey{ContainerID: request.ContainerID, Interface: request.Interface}
	switch request.Command {
	case "ADD":
		return v.add(ctx, request, key, netns)
	case "DEL":
		return nil, v.attacher.del(key)
	case "CHECK":
		return nil, v.check(request, key, netns)
	case "GC":
		return nil, v.collect(request)
	case "STATUS":
		if missing := v.starting(); missing != "" {
			return nil, types.NewError(types.ErrPluginNotAvailable, "the Fairlead agent is starting", missing)
		}
		return nil, nil
	default:
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("unknown command %q", request.Command), "")
	}
}

func (v *verbs) add(ctx context.Context, request *cni.Request, key model.AttachmentKey, netns *os.File) (*types100.Result, error) {
	if err := v.validate(request, netns); err != nil {
		return nil, err
	}
	ports, err := hostPorts(request.Config)
	if err != nil {
		return nil, err
	}
	w := wanted{AttachmentKey: key, ports: ports, netns: netns}
	w.pod, w.uid = podOf(request.Args)
	connected, err := v.attacher.add(ctx, w)
	if err != nil {
		return nil, err
	}
	return connected.result(request.Netns), nil
}

func (v *verbs) check(request *cni.Request, key model.AttachmentKey, netns *os.File) error {
	if err := v.validate(request, netns); err != nil {
		return err
	}
	var conf types.PluginConf
	err := json.Unmarshal(request.Config, &conf)
	if err == nil {
		err = version.ParsePrevResult(&conf)
	}
	if err == nil && conf.PrevResult == nil {
		err = errors.New("there is none")
	}
	var told *types100.Result
	if err == nil {
		told, err = types100.NewResultFromResult(conf.PrevResult)
	}
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "cannot read prevResult, the result of ADD", err.Error())
	}
	err = v.attacher.check(key, netns, told)
	if errors.As(err, new(difference)) {
		err = types.NewError(notAsAdded, "the pod's network is not as it was made", err.Error())
	}
	return err
}

// validate is for the verbs that need a pod with a namespace.
func (v *verbs) validate(request *cni.Request, netns *os.File) error {
	switch names := request.ContainerID + request.Interface; {
	case request.ContainerID == "" || request.Interface == "" || strings.ContainsFunc(names, unicode.IsSpace):
		return types.NewError(types.ErrInvalidEnvironmentVariables, "container ID and interface must be given, without spaces", "")
	case len(request.ContainerID) > maxContainerID:
		return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("the container ID is longer than %d bytes", maxContainerID), "")
	case netns == nil:
		return types.NewError(types.ErrInvalidNetNS, request.Command+" came without a network namespace", "")
	}
	id, err := identify(netns)
	switch {
	case err != nil:
		return types.NewError(types.ErrInvalidNetNS, "what came with "+request.Command+" is no network namespace", err.Error())
	case id == v.node:
		return types.NewError(types.ErrInvalidNetNS, "the pod's network namespace is the node's own", "")
	}
	return nil
}

// podOf reads the pod's name and UID from CNI_ARGS; zero if they are not there.
func podOf(args string) (pod model.PodKey, uid model.UID) {
	for arg := range strings.SplitSeq(args, ";") {
		switch name, value, _ := strings.Cut(arg, "="); name {
		case "K8S_POD_NAMESPACE":
			pod.Namespace = value
		case "K8S_POD_NAME":
			pod.Name = value
		case "K8S_POD_UID":
			uid = model.UIDOf(value)
		}
	}
	return pod, uid
}

func (v *verbs) collect(request *cni.Request) error {
	// Without the list, nothing is known to be left over.
	var conf struct {
		Valid *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	}
	if err := json.Unmarshal(request.Config, &conf); err != nil {
		return types.NewError(types.ErrDecodingFailure, "cannot read the list of valid attachments", err.Error())
	}
	if conf.Valid == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "GC came without cni.dev/valid-attachments", "")
	}
	valid := map[model.AttachmentKey]bool{}
	for _, attachment := range *conf.Valid {
		valid[model.AttachmentKey{ContainerID: attachment.ContainerID, Interface: attachment.IfName}] = true
	}
	return v.attacher.collect(valid)
}

// result describes a connected pod as the CNI specification wants it, section 5.
func (v *veth) result(netns string) *types100.Result {
	host, pod := hardware(v.AttachmentKey)
	result := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: v.Device, Mac: host.String(), Mtu: v.mtu},
			{Name: v.Interface, Mac: pod.String(), Mtu: v.mtu, Sandbox: netns},
		},
	}
	for _, addr := range v.Addresses {
		family := model.FamilyOf(addr)
		result.IPs = append(result.IPs, &types100.IPConfig{
			Interface: types100.Int(1),
			Address:   *network(model.HostPrefix(addr)),
			Gateway:   gateways[family].Addr().AsSlice(),
		})
		result.Routes = append(result.Routes, &types.Route{
			Dst: *network(defaults[family]), GW: gateways[family].Addr().AsSlice(),
		})
	}
	return result
}

// refusal says an error in CNI's words. What may be otherwise soon is code 11,
// upon which runtimes try again.
func refusal(err error) *cni.Reply {
	var exhausted *ipam.ExhaustedError
	var taken portTaken
	var said *types.Error
	switch {
	case errors.As(err, &said):
	case errors.As(err, &exhausted):
		said = types.NewError(types.ErrTryAgainLater, err.Error(), exhaustedRemedy)
	case errors.As(err, &taken):
		said = types.NewError(types.ErrTryAgainLater, err.Error(),
			"delete that pod, or give this one another hostPort, another hostIP or none")
	case errors.Is(err, errNotReady), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		said = types.NewError(types.ErrTryAgainLater, err.Error(), "")
	default:
		said = types.NewError(types.ErrInternal, err.Error(), "")
	}
	return &cni.Reply{Version: cni.Version, Error: said}
}
