#!/usr/bin/env bash
# Starts etcd and kube-apiserver, and with CONTROLLERS=1 also
# kube-controller-manager and kube-scheduler, all as plain processes.
#
#   STATE=/tmp/k8s-test BIN=/usr/local/lib/k8s/bin start-control-plane.sh
#
# prints the path of an administrator's kubeconfig. Stop with stop-all.sh.
#
# Environment:
#   ADDRESS      address to serve on (default 127.0.0.1; start-node.sh needs
#                one that pods can reach: 10.98.0.1, on the switch)
#   PORT         secure port of the API server (default: a free one)
#   AUDIT_POLICY audit policy file; the log is then $STATE/audit.log
#   CONTROLLERS  1: Deployments make Pods, owner references are collected,
#                service account tokens exist. 0: the API only (default 1)
. "$(dirname "$0")/lib.sh"
ADDRESS=${ADDRESS:-127.0.0.1}
CONTROLLERS=${CONTROLLERS:-1}
SERVICE_CIDR=${SERVICE_CIDR:-10.96.0.0/16}
free_port() { python3 -c 'import socket;s=socket.socket();s.bind(("127.0.0.1",0));print(s.getsockname()[1])'; }
PORT=${PORT:-$(free_port)}
ETCD_PORT=$(free_port); ETCD_PEER_PORT=$(free_port)
URL=https://$ADDRESS:$PORT
mkdir -p "$STATE"

make_ca
mint apiserver kube-apiserver '' \
  "IP:127.0.0.1,IP:$ADDRESS,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
mint apiserver-kubelet-client apiserver-kubelet-client system:masters
mint admin test-admin system:masters
mint controller-manager system:kube-controller-manager
mint scheduler system:kube-scheduler
kubeconfig "$STATE/kubeconfig" admin "$URL"
kubeconfig "$STATE/controller-manager.kubeconfig" controller-manager "$URL"
kubeconfig "$STATE/scheduler.kubeconfig" scheduler "$URL"

# etcd: one member, loopback only, and no fsync: the data need not survive.
echo "http://127.0.0.1:$ETCD_PORT" > "$STATE/etcd-url"
start etcd "$BIN/etcd" --name test --data-dir "$STATE/etcd" --unsafe-no-fsync \
  --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
  --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
  --initial-cluster "test=http://127.0.0.1:$ETCD_PEER_PORT" --log-level warn

extra=()
if [ -n "${AUDIT_POLICY:-}" ]; then
  # What the tests count requests with: one JSON line per request that the policy names.
  extra+=(--audit-policy-file="$AUDIT_POLICY" --audit-log-path="$STATE/audit.log" --audit-log-mode=blocking)
fi
if [ "$CONTROLLERS" = 0 ]; then
  # Nobody makes the "default" service account in each namespace then, and the
  # admission plug-in would refuse every Pod for want of it.
  extra+=(--disable-admission-plugins=ServiceAccount)
fi
if [ "$ADDRESS" = 127.0.0.1 ]; then
  # A loopback address cannot be an endpoint of the "kubernetes" Service.
  extra+=(--endpoint-reconciler-type=none)
fi
start kube-apiserver "$BIN/kube-apiserver" \
  --etcd-servers="http://127.0.0.1:$ETCD_PORT" \
  --bind-address="$ADDRESS" --advertise-address="$ADDRESS" --secure-port="$PORT" \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --client-ca-file="$PKI/ca.crt" --authorization-mode=Node,RBAC --allow-privileged=true \
  --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
  --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" \
  --kubelet-preferred-address-types=InternalIP,Hostname \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
  --service-cluster-ip-range="$SERVICE_CIDR" --profiling=false "${extra[@]}"
K=("$BIN/kubectl" --kubeconfig "$STATE/kubeconfig")
wait_for 60 kube-apiserver "${K[@]}" get --raw /readyz
wait_for 30 "the default namespace" "${K[@]}" get namespace default

if [ "$CONTROLLERS" = 1 ]; then
  start kube-controller-manager "$BIN/kube-controller-manager" \
    --kubeconfig="$STATE/controller-manager.kubeconfig" \
    --authentication-kubeconfig="$STATE/controller-manager.kubeconfig" \
    --authorization-kubeconfig="$STATE/controller-manager.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$(free_port)" --leader-elect=false \
    --use-service-account-credentials --root-ca-file="$PKI/ca.crt" \
    --service-account-private-key-file="$PKI/sa.key" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --allocate-node-cidrs=false --enable-hostpath-provisioner
  start kube-scheduler "$BIN/kube-scheduler" \
    --kubeconfig="$STATE/scheduler.kubeconfig" \
    --authentication-kubeconfig="$STATE/scheduler.kubeconfig" \
    --authorization-kubeconfig="$STATE/scheduler.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$(free_port)" --leader-elect=false
  # The last thing that a namespace needs before Pods can be made in it:
  wait_for 60 "the default service account" "${K[@]}" get serviceaccount default
fi
echo "$STATE/kubeconfig"
