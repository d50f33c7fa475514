{{/* Names, labels and the image. */}}

{{- define "marquee.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: pod templates and selectors carry only these, because a changed
label of a Ray pod makes the operator build a second cluster. Not `name`: the operator sets that one
on its pods, and looks for a service's head by it. Call with (list $ "component"). */}}
{{- define "marquee.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/part-of: marquee
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "marquee.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: marquee
{{ include "marquee.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "marquee.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* Of the pods that train: the build for GPUs where they have some. */}}
{{- define "marquee.trainingImage" -}}
{{- $gpu := .Values.training.gpu -}}
{{- if and $gpu.count $gpu.imageTag -}}
{{- printf "%s:%s" .Values.image.repository $gpu.imageTag -}}
{{- else -}}
{{- include "marquee.image" . -}}
{{- end -}}
{{- end -}}

{{- define "marquee.redisImage" -}}
{{- with .Values.redis.image.repository -}}
{{- printf "%s:%s" . (required "redis.image.tag is needed beside redis.image.repository" $.Values.redis.image.tag) -}}
{{- else -}}
{{- include "marquee.image" . -}}
{{- end -}}
{{- end -}}

{{- define "marquee.authSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-auth" (include "marquee.fullname" .)) -}}
{{- end -}}

{{- define "marquee.serviceAccount" -}}
{{- include "marquee.fullname" . -}}
{{- end -}}

{{/* Claim with the bundles, when they are on a volume. */}}
{{- define "marquee.storeClaim" -}}
{{- .Values.store.volume.existingClaim | default (printf "%s-store" (include "marquee.fullname" .)) -}}
{{- end -}}

{{- define "marquee.serveHost" -}}
{{- printf "%s-serve-svc" (include "marquee.fullname" .) -}}
{{- end -}}

{{/* A value as programs read it: numbers without an exponent, which Helm gives millions. */}}
{{- define "marquee.plain" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}
