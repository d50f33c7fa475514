{{/* The Ray containers: environment, volumes, security. Pod templates built from these depend on
values alone, never on the chart's version. */}}

{{/* Settings of the service (docs/settings.md). Head and workers get the same: the head builds the
application, the workers run it. */}}
{{- define "marquee.serviceEnv" -}}
{{ include "marquee.storeEnv" . }}
- name: MARQUEE_TOPOLOGY
  value: {{ .Values.serve.topology }}
{{- $settings := .Values.serve.settings }}
{{- if not $settings.eventLog }}
{{- $settings = merge (dict "eventLog" (include "marquee.feedbackLog" .)) $settings }}
{{- end }}
{{- range $name, $value := $settings }}
{{- with include "marquee.plain" $value }}
- name: MARQUEE_{{ snakecase $name | upper }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .Values.auth.apiKeysSecret }}
- name: MARQUEE_API_KEYS
  value: /keys/keys.json
{{- end }}
{{ include "marquee.redisEnv" . }}
{{ include "marquee.qdrantEnv" . }}
{{ include "marquee.mlflowEnv" . }}
{{- end -}}

{{- define "marquee.redisEnv" -}}
{{ include "marquee.stateEnv" . }}
{{ include "marquee.redisUrl" (list . "cache" "REDIS_CACHE_URL") }}
{{- end -}}

{{- define "marquee.stateEnv" -}}
{{ include "marquee.redisUrl" (list . "state" "REDIS_URL") }}
{{- end -}}

{{/* Call with (list $ role variable). */}}
{{- define "marquee.redisUrl" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- $name := index . 2 -}}
{{- $redis := index $.Values.redis $role -}}
{{- if $redis.enabled }}
- name: MARQUEE_{{ upper $role }}_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "marquee.authSecret" $ }}
      key: {{ $role }}-password
- name: {{ $name }}
  value: redis://:$(MARQUEE_{{ upper $role }}_PASSWORD)@{{ include "marquee.fullname" $ }}-redis-{{ $role }}:6379/0
{{- else if $redis.existingSecret }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $redis.existingSecret }}
      key: url
{{- else if $redis.externalUrl }}
- name: {{ $name }}
  value: {{ $redis.externalUrl | quote }}
{{- end }}
{{- end -}}

{{- define "marquee.qdrantEnv" -}}
{{- with .Values.qdrant }}
{{- if or .enabled .externalUrl }}
- name: QDRANT_URL
  value: {{ .enabled | ternary (printf "http://%s-qdrant:6333" (include "marquee.fullname" $)) .externalUrl | quote }}
- name: MARQUEE_QDRANT_TIMEOUT_MS
  value: {{ include "marquee.plain" .timeoutMs | quote }}
{{- if .enabled }}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "marquee.authSecret" $ }}
      key: qdrant-api-key
{{- else if .existingSecret }}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: api-key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* How Ray and Serve run. */}}
{{- define "marquee.rayEnv" -}}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
{{- if not .Values.auth.rayToken }}
- name: RAY_AUTH_MODE
  value: disabled
{{- end }}
- name: RAY_SERVE_ENABLE_HA_PROXY
  value: {{ .Values.serve.haproxy.enabled | ternary "1" "0" | quote }}
- name: RAY_SERVE_THROUGHPUT_OPTIMIZED
  value: {{ .Values.serve.haproxy.enabled | ternary "1" "0" | quote }}
{{/* What stands before Serve's own layers: ADR 35. */ -}}
- name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH
  value: app.api.front:before_serve
- name: RAY_SERVE_HAPROXY_NBTHREAD
  value: {{ include "marquee.plain" .Values.serve.haproxy.threads | quote }}
- name: RAY_SERVE_HAPROXY_MAXCONN
  value: {{ include "marquee.plain" .Values.serve.haproxy.maxConnections | quote }}
{{/* As app/local.py has them: ADR 27, and a client that says nothing for half a minute is gone. */ -}}
- name: RAY_SERVE_HAPROXY_RETRY_ON
  value: conn-failure empty-response
- name: RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S
  value: "30"
- name: RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER
  value: 500ms
- name: RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL
  value: "6"
- name: RAY_SERVE_LOG_TO_STDERR
  value: "1"
- name: RAY_LOG_TO_STDERR
  value: {{ .Values.serve.logToStderr | ternary "1" "0" | quote }}
- name: RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S
  value: {{ include "marquee.plain" .Values.serve.autoscaling.reportIntervalS | quote }}
- name: RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S
  value: {{ include "marquee.plain" .Values.serve.autoscaling.reportIntervalS | quote }}
{{- end -}}

{{- define "marquee.rayMounts" -}}
- name: tmp
  mountPath: /tmp
- name: shared-memory
  mountPath: /dev/shm
{{ include "marquee.storeMount" . }}
{{- end -}}

{{/* Call with (list $ sizeOfSharedMemory). */}}
{{- define "marquee.rayVolumes" -}}
- name: tmp
  emptyDir: {}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ index . 1 }}
{{ include "marquee.storeVolume" (index . 0) }}
{{- end -}}

{{/* Bytes of a quantity with a binary suffix or none: what `ray start --object-store-memory`
takes. A tenth is left to what else lives in /dev/shm. */}}
{{- define "marquee.objectStoreBytes" -}}
{{- $units := dict "" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- $unit := trimPrefix $number . -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "sharedMemory %q is not a whole number of bytes, Ki, Mi or Gi" .) -}}
{{- end -}}
{{- div (mul (int64 $number) (index $units $unit) 9) 10 -}}
{{- end -}}

{{- define "marquee.rayAuth" -}}
authOptions:
  {{- if .Values.auth.rayToken }}
  mode: token
  secretName: {{ include "marquee.authSecret" . }}
  {{- else }}
  mode: disabled
  {{- end }}
{{- end -}}
