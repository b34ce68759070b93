# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's schema for a new container, option by option: what becomes of each in a cluster.

The schema is that of the Engine API 1.41 (ContainerCreate), which stock edgeAgents of 1.6 use, with what
later versions added. An option that stands nowhere is refused as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

EXTENSIONS = "k8s-extensions"


class Verdict(StrEnum):
    """What becomes of an option."""

    TRANSLATED = "translated"
    REFUSED = "refused"
    MEANINGLESS = "meaningless"


@dataclass(frozen=True)
class Option:
    """Verdict, and what an option becomes or why it becomes nothing."""

    verdict: Verdict
    text: str


def _t(text: str) -> Option:
    return Option(Verdict.TRANSLATED, text)


def _r(text: str) -> Option:
    return Option(Verdict.REFUSED, text)


def _m(text: str) -> Option:
    return Option(Verdict.MEANINGLESS, text)


_NODE = "the node's owner decides that, for all pods (kubelet)"
_RUNTIME = "Kubernetes has no such setting for a container"
_STREAMS = "nobody is attached to a module"
_WINDOWS = "containers of Windows only"

OPTIONS: Mapping[str, Option] = {
    "Hostname": _t("`hostname` of the pod, a DNS label"),
    "Domainname": _r("a pod's domain is the cluster's"),
    "User": _t("`runAsUser` and `runAsGroup`, as numbers; `root` is 0"),
    "AttachStdin": _m(_STREAMS),
    "AttachStdout": _m(_STREAMS),
    "AttachStderr": _m(_STREAMS),
    "ExposedPorts": _t("ports of the module's Service"),
    "Tty": _t("`tty`"),
    "OpenStdin": _t("`stdin`"),
    "StdinOnce": _m(_STREAMS),
    "Env": _t("`env`; variables of the module's own `env` win"),
    "Cmd": _t("`args`"),
    "Healthcheck": _t(
        "liveness probe: the kubelet ends the container, and the module starts anew as its restartPolicy says"
    ),
    "Healthcheck.Test": _t("`exec`; `NONE` is no probe; what the image says is not known to a cluster"),
    "Healthcheck.Interval": _t("`periodSeconds`, in whole seconds"),
    "Healthcheck.Timeout": _t("`timeoutSeconds`, in whole seconds"),
    "Healthcheck.Retries": _t("`failureThreshold`"),
    "Healthcheck.StartPeriod": _t("`initialDelaySeconds`, in whole seconds"),
    "Healthcheck.StartInterval": _r("a liveness probe has one period"),
    "ArgsEscaped": _m(_WINDOWS),
    "Image": _m("the module's `settings.image` decides"),
    "Volumes": _t("`emptyDir`, which goes with the pod"),
    "WorkingDir": _t("`workingDir`"),
    "Entrypoint": _t("`command`"),
    "NetworkDisabled": _r("a pod always has a network"),
    "MacAddress": _r("the network plugin gives it"),
    "OnBuild": _m("of images that are built, not of those that run"),
    "Labels": _t("annotations of the pod"),
    "StopSignal": _r("the kubelet sends the image's own, or SIGTERM"),
    "StopTimeout": _t("`terminationGracePeriodSeconds`; 0 is 1, as 0 would not wait for the end"),
    "Shell": _m("of images that are built, not of those that run"),
    "HostConfig": _t("see each option below"),
    "HostConfig.CpuShares": _t("`requests.cpu`: 1024 are one processor; at most the limit"),
    "HostConfig.Memory": _t("`limits.memory`, in bytes"),
    "HostConfig.NanoCpus": _t("`limits.cpu`"),
    "HostConfig.CgroupParent": _r(_NODE),
    "HostConfig.BlkioWeight": _r(_RUNTIME),
    "HostConfig.BlkioWeightDevice": _r(_RUNTIME),
    "HostConfig.BlkioDeviceReadBps": _r(_RUNTIME),
    "HostConfig.BlkioDeviceWriteBps": _r(_RUNTIME),
    "HostConfig.BlkioDeviceReadIOps": _r(_RUNTIME),
    "HostConfig.BlkioDeviceWriteIOps": _r(_RUNTIME),
    "HostConfig.CpuPeriod": _t("with CpuQuota: `limits.cpu`"),
    "HostConfig.CpuQuota": _t("`limits.cpu`: of CpuPeriod, or of 100 ms"),
    "HostConfig.CpuRealtimePeriod": _r(_RUNTIME),
    "HostConfig.CpuRealtimeRuntime": _r(_RUNTIME),
    "HostConfig.CpusetCpus": _r("the kubelet's CPU manager places pods on processors"),
    "HostConfig.CpusetMems": _r("the kubelet's memory manager places pods on memory"),
    "HostConfig.Devices": _r(
        "a device needs a plugin of its vendor (`resources` in k8s-extensions), or `Privileged` and a bind"
    ),
    "HostConfig.DeviceCgroupRules": _r(_RUNTIME),
    "HostConfig.DeviceRequests": _r("ask for it with `resources` in k8s-extensions, as its plugin names it"),
    "HostConfig.KernelMemory": _r("the kernel no longer has it"),
    "HostConfig.KernelMemoryTCP": _r("the kernel no longer has it"),
    "HostConfig.MemoryReservation": _t("`requests.memory`, in bytes"),
    "HostConfig.MemorySwap": _r(_NODE),
    "HostConfig.MemorySwappiness": _r(_NODE),
    "HostConfig.OomKillDisable": _r(_RUNTIME),
    "HostConfig.Init": _r("use an image with an init of its own"),
    "HostConfig.PidsLimit": _r(_NODE),
    "HostConfig.Ulimits": _r(_RUNTIME),
    "HostConfig.CpuCount": _r(_WINDOWS),
    "HostConfig.CpuPercent": _r(_WINDOWS),
    "HostConfig.IOMaximumIOps": _r(_WINDOWS),
    "HostConfig.IOMaximumBandwidth": _r(_WINDOWS),
    "HostConfig.Binds": _t(
        "a file, device or folder of the node (`hostPath`; what is missing is made as a folder), or a claim "
        "for a named volume"
    ),
    "HostConfig.ContainerIDFile": _r("a file of the Docker client"),
    "HostConfig.LogConfig": _m("the kubelet keeps and rotates logs"),
    "HostConfig.NetworkMode": _t(
        "`host`: `hostNetwork`, see above; the names of Docker's own networks change nothing"
    ),
    "HostConfig.PortBindings": _t("ports of the module's Service"),
    "HostConfig.RestartPolicy": _m(
        "edgeAgent starts a module again by the `restartPolicy` of its deployment"
    ),
    "HostConfig.AutoRemove": _r("a module is kept"),
    "HostConfig.VolumeDriver": _r("the gateway's storage class is the driver"),
    "HostConfig.VolumesFrom": _r("name the volume in both modules"),
    "HostConfig.Mounts": _t("see each option below"),
    "HostConfig.Mounts.Target": _t("`mountPath`"),
    "HostConfig.Mounts.Source": _t(
        "a file, device or folder of the node without tokens, or the name of a volume"
    ),
    "HostConfig.Mounts.Type": _t("`bind`, `volume` or `tmpfs`"),
    "HostConfig.Mounts.ReadOnly": _t("`readOnly`"),
    "HostConfig.Mounts.Consistency": _m("Docker Desktop only"),
    "HostConfig.Mounts.BindOptions": _t("see each option below"),
    "HostConfig.Mounts.BindOptions.Propagation": _t("`mountPropagation`"),
    "HostConfig.Mounts.BindOptions.NonRecursive": _r(_RUNTIME),
    "HostConfig.Mounts.BindOptions.CreateMountpoint": _t("what is missing is made as a folder in any case"),
    "HostConfig.Mounts.BindOptions.ReadOnlyNonRecursive": _r(_RUNTIME),
    "HostConfig.Mounts.BindOptions.ReadOnlyForceRecursive": _r(_RUNTIME),
    "HostConfig.Mounts.VolumeOptions": _t("see each option below"),
    "HostConfig.Mounts.VolumeOptions.NoCopy": _m("a claim never gets what the image has in that folder"),
    "HostConfig.Mounts.VolumeOptions.Labels": _m("a claim belongs to the gateway"),
    "HostConfig.Mounts.VolumeOptions.DriverConfig": _r("the gateway's storage class is the driver"),
    "HostConfig.Mounts.VolumeOptions.Subpath": _t("`subPath`, inside the volume"),
    "HostConfig.Mounts.TmpfsOptions": _t("see each option below"),
    "HostConfig.Mounts.TmpfsOptions.SizeBytes": _t("`sizeLimit` of an `emptyDir` in memory"),
    "HostConfig.Mounts.TmpfsOptions.Mode": _r("an `emptyDir` is open to all users of the pod"),
    "HostConfig.Mounts.TmpfsOptions.Options": _r(_RUNTIME),
    "HostConfig.Mounts.ImageOptions": _r("put what is in the image into a volume"),
    "HostConfig.Mounts.ClusterOptions": _r("of Docker's swarm"),
    "HostConfig.CapAdd": _t("`capabilities.add`; without `User` the image's user has them"),
    "HostConfig.CapDrop": _t("`capabilities.drop`, which begins with ALL where that is not added"),
    "HostConfig.CgroupnsMode": _r(_RUNTIME),
    "HostConfig.Dns": _t("`dnsConfig.nameservers`, and none of the cluster's"),
    "HostConfig.DnsOptions": _t("`dnsConfig.options`"),
    "HostConfig.DnsSearch": _t("`dnsConfig.searches`"),
    "HostConfig.ExtraHosts": _t("`hostAliases`"),
    "HostConfig.GroupAdd": _t("`supplementalGroups`, as numbers"),
    "HostConfig.IpcMode": _t("`host`: `hostIPC`; `private` is what a pod has"),
    "HostConfig.Cgroup": _r(_RUNTIME),
    "HostConfig.Links": _r("modules find each other by their ids, see above"),
    "HostConfig.OomScoreAdj": _r("the kubelet sets it, by the pod's class"),
    "HostConfig.PidMode": _t("`host`: `hostPID`"),
    "HostConfig.Privileged": _t("`privileged`; without `User` the image's user is it"),
    "HostConfig.PublishAllPorts": _r("name the ports in PortBindings"),
    "HostConfig.ReadonlyRootfs": _t("`readOnlyRootFilesystem`"),
    "HostConfig.SecurityOpt": _t(
        "`no-new-privileges` (not beside `Privileged`), and `seccomp=unconfined`; others are refused"
    ),
    "HostConfig.StorageOpt": _r(_RUNTIME),
    "HostConfig.Tmpfs": _t("`emptyDir` in memory; of its options `rw` and `size`"),
    "HostConfig.UTSMode": _r("a pod on the node's network has its name too"),
    "HostConfig.Umask": _r(_RUNTIME),
    "HostConfig.UsernsMode": _r(_RUNTIME),
    "HostConfig.ShmSize": _t("an `emptyDir` in memory at /dev/shm"),
    "HostConfig.Sysctls": _t("`sysctls` of the pod; the kubelet allows the safe ones"),
    "HostConfig.Runtime": _r("a runtime is a RuntimeClass, which the module does not choose"),
    "HostConfig.ConsoleSize": _m(_WINDOWS),
    "HostConfig.Isolation": _r(_WINDOWS),
    "HostConfig.MaskedPaths": _r(_RUNTIME),
    "HostConfig.ReadonlyPaths": _r(_RUNTIME),
    "HostConfig.Annotations": _t("annotations of the pod"),
    "NetworkingConfig": _t("see each option below"),
    "NetworkingConfig.EndpointsConfig": _t("the names of Docker's own networks change nothing"),
    "NetworkingConfig.EndpointsConfig.IPAMConfig": _r("the network plugin gives addresses"),
    "NetworkingConfig.EndpointsConfig.Links": _r("modules find each other by their ids, see above"),
    "NetworkingConfig.EndpointsConfig.Aliases": _r("a module has one name"),
    "NetworkingConfig.EndpointsConfig.DriverOpts": _r("the network plugin has options of its own"),
    "NetworkingConfig.EndpointsConfig.GwPriority": _r("a pod has one network"),
    "NetworkingConfig.EndpointsConfig.NetworkID": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.EndpointID": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.Gateway": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.IPAddress": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.MacAddress": _r("the network plugin gives it"),
    "NetworkingConfig.EndpointsConfig.IPPrefixLen": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.IPv6Gateway": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.GlobalIPv6Address": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.GlobalIPv6PrefixLen": _m("an answer of Docker's"),
    "NetworkingConfig.EndpointsConfig.DNSNames": _m("an answer of Docker's"),
    EXTENSIONS: _t("what Docker has no word for, see each option below"),
    f"{EXTENSIONS}.nodeSelector": _t("`nodeSelector`; the gateway's daemon is on that machine too"),
    f"{EXTENSIONS}.tolerations": _t("`tolerations`, beside those for a node that is away"),
    f"{EXTENSIONS}.affinity": _t("`affinity`"),
    f"{EXTENSIONS}.resources": _t("`resources`; wins over Memory and the like"),
    f"{EXTENSIONS}.volumes": _t(
        "`[{volume, volumeMounts}]`: any volume of Kubernetes that is not another's, see above"
    ),
    f"{EXTENSIONS}.securityContext": _t("`securityContext` of the pod"),
    f"{EXTENSIONS}.serviceOptions": _t("`type` and `loadBalancerIP` of the module's Service"),
}
