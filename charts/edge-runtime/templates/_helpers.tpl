{{/* Labels and names that the templates share. */}}

{{- define "edge-runtime.selectorLabels" -}}
app.kubernetes.io/name: edge-runtime
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "edge-runtime.labels" -}}
{{ include "edge-runtime.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Values.gateway.name | default .Release.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "edge-runtime.daemonName" -}}
{{ .Release.Name }}-daemon
{{- end }}

{{/* The slots of the gateway: with a standby it is there twice. Pods of a slot are on one machine. */}}
{{- define "edge-runtime.slots" -}}
{{ include "edge-runtime.activeSlot" . }}{{ if .Values.standby.enabled }},b{{ end }}
{{- end }}

{{/* The slot that Services lead to. As long as nothing decides about a takeover, that is always the first. */}}
{{- define "edge-runtime.activeSlot" -}}
a
{{- end }}

{{/* PriorityClass of a slot. Arguments: root context, the slot. */}}
{{- define "edge-runtime.priorityClass" -}}
{{- $root := index . 0 -}}
{{ include "edge-runtime.clusterName" $root }}{{ if ne (index . 1) (include "edge-runtime.activeSlot" $root) }}-standby{{ end }}
{{- end }}

{{/* Labels of the daemon of a slot. Argument: the slot. */}}
{{- define "edge-runtime.slotLabels" -}}
app.kubernetes.io/component: daemon
iotedge.edgeha.io/slot: {{ . }}
{{- end }}

{{/* Objects that are not in a namespace carry it in their name: two gateways may share one. */}}
{{- define "edge-runtime.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace .Release.Name | trunc 54 | trimSuffix "-" }}-gateway
{{- end }}

{{/* Image reference. Arguments: root context, the values with repository and tag. */}}
{{- define "edge-runtime.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- define "edge-runtime.gatewayService" -}}
{{ .Release.Name }}-gateway
{{- end }}

{{/* Host name of the gateway, which its certificates are for. With edgeAgent it has one of its own. */}}
{{- define "edge-runtime.gatewayHostname" -}}
{{- if .Values.edgeAgent.image -}}
{{ .Values.gateway.gatewayHostname | default .Release.Name }}
{{- else -}}
{{ .Values.gateway.gatewayHostname }}
{{- end -}}
{{- end }}

{{/* The module set as JSON; edgeAgent is one of its modules. */}}
{{- define "edge-runtime.modules" -}}
{{- $modules := .Values.modules -}}
{{- with .Values.edgeAgent -}}
{{- if .image -}}
{{- $modules = prepend $modules (merge (dict "name" "edgeAgent") .) -}}
{{- end -}}
{{- end -}}
{{ $modules | toJson }}
{{- end }}
