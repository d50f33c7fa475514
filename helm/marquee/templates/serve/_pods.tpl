{{/* Pod templates of the serving cluster. Probes are the operator's: one of ours would replace
its checks of Ray and of Serve. */}}

{{- define "marquee.gcsOptions" -}}
{{- $gcs := .Values.redis.gcs -}}
{{- if or $gcs.enabled $gcs.externalAddress -}}
# No externalStorageNamespace: the operator takes the cluster's uid, and the old and the new cluster
# of an upgrade must not read each other's state.
gcsFaultToleranceOptions:
  {{- if $gcs.enabled }}
  redisAddress: {{ include "marquee.fullname" . }}-redis-gcs:6379
  redisPassword:
    valueFrom:
      secretKeyRef:
        name: {{ include "marquee.authSecret" . }}
        key: gcs-password
  {{- else }}
  redisAddress: {{ $gcs.externalAddress }}
  {{- with $gcs.existingSecret }}
  redisPassword:
    valueFrom:
      secretKeyRef:
        name: {{ . }}
        key: password
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "marquee.headPod" -}}
{{- $head := .Values.serve.head -}}
metadata:
  labels:
    {{- include "marquee.selectorLabels" (list . "serve-head") | nindent 4 }}
spec:
  {{- if not .Values.serve.nodeAutoscaling.enabled }}
  serviceAccountName: {{ include "marquee.serviceAccount" . }}
  automountServiceAccountToken: false
  {{- end }}
  enableServiceLinks: false
  {{- include "marquee.pullSecrets" . | nindent 2 }}
  securityContext:
    {{- include "marquee.podSecurity" . | nindent 4 }}
  {{- with $head.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $head.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  initContainers:
    # Ray gives its head 30 seconds to begin, and where its code is still to be read from a slow disk
    # that is too short: read it before.
    - name: read-code
      image: {{ include "marquee.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [bash, -c]
      args: ['find "$(python -c "import ray; print(ray.__path__[0])")" -type f -exec cat {} + >/dev/null']
      resources:
        {{- include "marquee.resources" (dict "cpu" $head.cpu "memory" "512Mi") | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
    {{- if .Values.redis.gcs.enabled }}
    - name: wait-for-redis
      image: {{ include "marquee.redisImage" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [bash, -c]
      args:
        - |
          until ( {{ include "marquee.redisPing" (list (printf "%s-redis-gcs" (include "marquee.fullname" .)) 6379) }} ) 2>/dev/null
          do echo "waiting for Ray's Redis"; sleep 2; done
      env:
        - name: PASSWORD
          valueFrom:
            secretKeyRef:
              name: {{ include "marquee.authSecret" . }}
              key: gcs-password
      resources:
        {{- include "marquee.resources" (dict "cpu" "50m" "memory" "64Mi") | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" . | nindent 8 }}
    {{- end }}
  containers:
    - name: ray-head
      image: {{ include "marquee.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      ports:
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        - {name: serve, containerPort: 8000}
      env:
        {{- include "marquee.rayEnv" . | nindent 8 }}
        {{- include "marquee.serviceEnv" . | nindent 8 }}
        {{- with .Values.serve.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- include "marquee.resources" $head | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "marquee.rayMounts" . | nindent 8 }}
  volumes:
    {{- include "marquee.rayVolumes" (list . $head.sharedMemory) | nindent 4 }}
{{- end -}}

{{- define "marquee.workerPod" -}}
{{- $workers := .Values.serve.workers -}}
metadata:
  labels:
    {{- include "marquee.selectorLabels" (list . "serve-worker") | nindent 4 }}
spec:
  serviceAccountName: {{ include "marquee.serviceAccount" . }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .Values.serve.drain.terminationGracePeriodS }}
  enableServiceLinks: false
  {{- include "marquee.pullSecrets" . | nindent 2 }}
  securityContext:
    {{- include "marquee.podSecurity" . | nindent 4 }}
  {{- with $workers.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $workers.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ $workers.spreadOver }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "marquee.selectorLabels" (list . "serve-worker") | nindent 10 }}
  initContainers:
    # Until there is something to serve there is no worker, and so the service is not ready.
    - name: wait-for-bundle
      image: {{ include "marquee.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [marquee, wait]
      env:
        {{- include "marquee.storeEnv" . | nindent 8 }}
      resources:
        {{- include "marquee.resources" (dict "cpu" $workers.cpu "memory" "512Mi") | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "marquee.rayMounts" . | nindent 8 }}
  containers:
    - name: ray-worker
      image: {{ include "marquee.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      ports:
        - {name: serve, containerPort: 8000}
      env:
        {{- include "marquee.rayEnv" . | nindent 8 }}
        - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
          value: {{ include "marquee.plain" .Values.serve.drain.timeoutS | quote }}
        {{- include "marquee.serviceEnv" . | nindent 8 }}
        {{- with .Values.serve.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- include "marquee.resources" $workers | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "marquee.rayMounts" . | nindent 8 }}
        {{- if .Values.auth.apiKeysSecret }}
        # A directory: one file of a Secret alone would not follow it.
        - {name: api-keys, mountPath: /keys, readOnly: true}
        {{- end }}
  volumes:
    {{- include "marquee.rayVolumes" (list . $workers.sharedMemory) | nindent 4 }}
    {{- with .Values.auth.apiKeysSecret }}
    - name: api-keys
      secret:
        secretName: {{ . }}
        items:
          - {key: keys.json, path: keys.json}
    {{- end }}
{{- end -}}
