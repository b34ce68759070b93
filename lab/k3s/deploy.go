package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

const roleBindings = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:k3s-controller"}
rules:
  - {apiGroups: [""], resources: [nodes], verbs: [get, list, watch, update, patch]}
  - {apiGroups: [""], resources: [nodes/status], verbs: [update, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:k3s-controller"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:k3s-controller"}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:k3s-controller"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kube-apiserver-kubelet-admin}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:kubelet-api-admin"}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver}
`

// deployManifests applies what lies in server/manifests, and again whenever a file there changes.
func (s *server) deployManifests(ctx context.Context) {
	folder := s.home.server("manifests")
	if err := s.writePackaged(folder); err != nil {
		errorf("manifests: %v", err)
	}
	client, err := dynamic.NewForConfig(s.rest)
	if err != nil {
		errorf("manifests: %v", err)
		return
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(s.api.Discovery()))
	done, told := map[string]string{}, map[string]string{}
	for ctx.Err() == nil {
		_ = filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return nil
			}
			suffix := strings.ToLower(filepath.Ext(path))
			if suffix != ".yaml" && suffix != ".yml" && suffix != ".json" || exists(path+".skip") || s.isDisabled(path) {
				return nil
			}
			state := fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
			if done[path] == state {
				return nil
			}
			if err := s.applyFile(ctx, client, mapper, path); err != nil {
				if told[path] != err.Error() {
					errorf("Failed to process config: failed to process %s: %v", path, err)
					told[path] = err.Error()
				}
				return nil
			}
			infof("Applied manifest %s", path)
			done[path] = state
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second):
		}
	}
}

func (s *server) isDisabled(path string) bool {
	return contains(s.options.list("disable"), strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
}

// writePackaged puts the components that the work-alike brings beside the users' manifests.
func (s *server) writePackaged(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	packaged := map[string]string{"rolebindings.yaml": roleBindings, "coredns.yaml": s.dnsManifest()}
	for name, content := range packaged {
		path := filepath.Join(folder, name)
		if s.isDisabled(path) {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return err
			}
			continue
		}
		if err := writeChanged(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) applyFile(ctx context.Context, client dynamic.Interface, mapper *restmapper.DeferredDiscoveryRESTMapper, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	decoder := yaml.NewYAMLOrJSONDecoder(file, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := s.applyObject(ctx, client, mapper, object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func (s *server) applyObject(ctx context.Context, client dynamic.Interface, mapper *restmapper.DeferredDiscoveryRESTMapper, object *unstructured.Unstructured) error {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	kind := object.GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		mapper.Reset()
		return err
	}
	options := metav1.ApplyOptions{FieldManager: "deploy@" + s.node, Force: true}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() == "" {
			object.SetNamespace("default")
		}
		_, err = client.Resource(mapping.Resource).Namespace(object.GetNamespace()).Apply(limited, object.GetName(), object, options)
	} else {
		_, err = client.Resource(mapping.Resource).Apply(limited, object.GetName(), object, options)
	}
	return err
}

func (s *server) dnsManifest() string {
	return strings.NewReplacer("%{DOMAIN}", s.options.text("cluster-domain"), "%{DNS}", s.clusterDNS()).Replace(`apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
  - {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects:
  - {kind: ServiceAccount, name: coredns, namespace: kube-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        errors
        health
        ready
        kubernetes %{DOMAIN} in-addr.arpa ip6.arpa {
            pods insecure
            fallthrough in-addr.arpa ip6.arpa
        }
        prometheus :9153
        cache 30
        reload
        loadbalance
    }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: coredns
  namespace: kube-system
  labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}
spec:
  revisionHistoryLimit: 0
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      priorityClassName: system-cluster-critical
      serviceAccountName: coredns
      dnsPolicy: Default
      nodeSelector: {kubernetes.io/os: linux}
      tolerations:
        - {key: CriticalAddonsOnly, operator: Exists}
        - {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}
      containers:
        - name: coredns
          image: rancher/mirrored-coredns-coredns:1.12.3
          imagePullPolicy: IfNotPresent
          args: [-conf, /etc/coredns/Corefile]
          ports:
            - {containerPort: 53, name: dns, protocol: UDP}
            - {containerPort: 53, name: dns-tcp, protocol: TCP}
          resources: {limits: {memory: 170Mi}, requests: {cpu: 20m, memory: 40Mi}}
          readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 2}
          volumeMounts:
            - {name: config, mountPath: /etc/coredns, readOnly: true}
      volumes:
        - name: config
          configMap: {name: coredns}
---
apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {k8s-app: kube-dns, kubernetes.io/cluster-service: "true", kubernetes.io/name: CoreDNS}
spec:
  selector: {k8s-app: kube-dns}
  clusterIP: %{DNS}
  ports:
    - {name: dns, port: 53, protocol: UDP}
    - {name: dns-tcp, port: 53, protocol: TCP}
`)
}
