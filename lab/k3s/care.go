package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	etcdNameNote       = "etcd.k3s.cattle.io/node-name"
	etcdAddressNote    = "etcd.k3s.cattle.io/node-address"
	etcdRemoveNote     = "etcd.k3s.cattle.io/remove"
	etcdRemovedNote    = "etcd.k3s.cattle.io/removed-node-name"
	memberFinalizer    = "wrangler.cattle.io/managed-etcd-controller"
	nodeFinalizer      = "wrangler.cattle.io/node"
	passwordSecretTail = ".node-password.k3s"
)

var errNodePassword = errors.New("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag") //nolint:staticcheck

func hashPassword(salt, password string) string {
	digest := sha256.Sum256([]byte(salt + ":" + password))
	return "$1:" + salt + ":" + hex.EncodeToString(digest[:])
}

// proveNode holds a node's password against the one that it came with first.
func (s *server) proveNode(ctx context.Context, name, password string) error {
	limited, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	known, err := s.api.CoreV1().Secrets("kube-system").Get(limited, name+passwordSecretTail, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		immutable := true
		_, err = s.api.CoreV1().Secrets("kube-system").Create(limited, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name + passwordSecretTail, Namespace: "kube-system"},
			Immutable:  &immutable, Data: map[string][]byte{"hash": []byte(hashPassword(randomHex(8), password))},
		}, metav1.CreateOptions{})
		if err == nil || !apierrors.IsAlreadyExists(err) {
			return err
		}
		known, err = s.api.CoreV1().Secrets("kube-system").Get(limited, name+passwordSecretTail, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	stored := string(known.Data["hash"])
	parts := strings.Split(stored, ":")
	if len(parts) != 3 || subtle.ConstantTimeCompare([]byte(hashPassword(parts[1], password)), []byte(stored)) != 1 {
		return errNodePassword
	}
	return nil
}

// careForCluster keeps what k3s keeps about nodes: labels, notes and the condition of this one; and, as the member that
// leads, the traces of nodes that were deleted.
func (s *server) careForCluster(ctx context.Context) {
	go s.deployManifests(ctx)
	for ctx.Err() == nil {
		done := s.careForOwnNode(ctx)
		if s.etcd == nil || s.etcd.isLeader() {
			if err := s.careForNodes(ctx); err != nil {
				debugf("nodes: %v", err)
			}
		}
		pause := time.Second
		if done {
			pause = 2 * time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (s *server) careForOwnNode(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	node, err := s.api.CoreV1().Nodes().Get(limited, s.node, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil || node.DeletionTimestamp != nil {
		return false
	}
	labels, notes := map[string]string{}, map[string]string{}
	want := func(into, have map[string]string, key, value string) {
		if have[key] != value {
			into[key] = value
		}
	}
	hostname, _ := os.Hostname()
	want(labels, node.Labels, "node-role.kubernetes.io/control-plane", "true")
	want(notes, node.Annotations, "k3s.io/hostname", hostname)
	want(notes, node.Annotations, "k3s.io/internal-ip", s.address)
	if s.etcd != nil {
		want(labels, node.Labels, "node-role.kubernetes.io/etcd", "true")
		if node.Annotations[etcdRemoveNote] != "true" {
			want(notes, node.Annotations, etcdNameNote, s.etcd.name)
			want(notes, node.Annotations, etcdAddressNote, s.address)
		}
	}
	if len(labels)+len(notes) > 0 {
		patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": notes}})
		if _, err := s.api.CoreV1().Nodes().Patch(limited, s.node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return false
		}
	}
	if s.etcd != nil {
		s.tellVoter(limited, node)
	}
	return true
}

// tellVoter keeps the condition EtcdIsVoter.
func (s *server) tellVoter(ctx context.Context, node *corev1.Node) {
	wanted := corev1.NodeCondition{
		Type: "EtcdIsVoter", Status: corev1.ConditionTrue, Reason: "MemberNotLearner",
		Message: "Node is a voting member of the etcd cluster",
	}
	if s.etcd.running.Server.IsLearner() {
		wanted.Status, wanted.Reason = corev1.ConditionFalse, "MemberIsLearner"
		wanted.Message = "Node has not been promoted to voting member of the etcd cluster"
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == wanted.Type && condition.Status == wanted.Status && time.Since(condition.LastHeartbeatTime.Time) < 5*time.Minute {
			return
		}
	}
	wanted.LastHeartbeatTime, wanted.LastTransitionTime = metav1.Now(), metav1.Now()
	patch, _ := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{wanted}}})
	_, _ = s.api.CoreV1().Nodes().Patch(ctx, s.node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
}

// careForNodes holds each node until its member and its password are gone with it.
func (s *server) careForNodes(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	nodes, err := s.api.CoreV1().Nodes().List(limited, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	for index := range nodes.Items {
		node := &nodes.Items[index]
		_, hasMember := node.Labels["node-role.kubernetes.io/etcd"]
		hasMember = hasMember && s.etcd != nil
		held := map[string]bool{}
		for _, finalizer := range node.Finalizers {
			held[finalizer] = true
		}
		if node.DeletionTimestamp == nil {
			wanted := append([]string{}, node.Finalizers...)
			if !held[nodeFinalizer] {
				wanted = append(wanted, nodeFinalizer)
			}
			if hasMember && !held[memberFinalizer] {
				wanted = append(wanted, memberFinalizer)
			}
			if len(wanted) > len(node.Finalizers) {
				_ = s.setFinalizers(limited, node, wanted)
			}
			if hasMember && node.Annotations[etcdRemoveNote] == "true" && node.Annotations[etcdRemovedNote] == "" {
				if err := s.removeMember(limited, node); err != nil {
					warnf("removing the etcd member of %s: %v", node.Name, err)
				}
			}
			continue
		}
		kept := []string{}
		for _, finalizer := range node.Finalizers {
			switch finalizer {
			case memberFinalizer:
				if err := s.removeMemberOf(limited, node); err != nil {
					warnf("removing the etcd member of %s: %v", node.Name, err)
					kept = append(kept, finalizer)
				}
			case nodeFinalizer:
				err := s.api.CoreV1().Secrets("kube-system").Delete(limited, node.Name+passwordSecretTail, metav1.DeleteOptions{})
				if err != nil && !apierrors.IsNotFound(err) {
					kept = append(kept, finalizer)
				}
			default:
				kept = append(kept, finalizer)
			}
		}
		if len(kept) < len(node.Finalizers) {
			_ = s.setFinalizers(limited, node, kept)
		}
	}
	return nil
}

func (s *server) setFinalizers(ctx context.Context, node *corev1.Node, finalizers []string) error {
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{
		"finalizers": finalizers, "resourceVersion": node.ResourceVersion,
	}})
	_, err := s.api.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (s *server) removeMemberOf(ctx context.Context, node *corev1.Node) error {
	if s.etcd == nil || node.Annotations[etcdNameNote] == "" {
		return nil
	}
	return s.etcd.remove(ctx, s.store, node.Annotations[etcdNameNote], node.Annotations[etcdAddressNote])
}

// removeMember answers the note by which a member is taken out while its node stays.
func (s *server) removeMember(ctx context.Context, node *corev1.Node) error {
	if err := s.removeMemberOf(ctx, node); err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q,%q:null,%q:null}}}`, etcdRemovedNote, node.Annotations[etcdNameNote], etcdNameNote, etcdAddressNote)
	_, err := s.api.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}
