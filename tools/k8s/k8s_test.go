// Package k8s_test builds what is in deploy/k8s, as `kubectl apply -k` would, and
// decodes it by the published types, strictly: a misspelt field fails. It is a module
// of its own, so that Kubernetes' dependencies stay out of the program's.
package k8s_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const root = "../../"

// object is one that was built, decoded.
type object struct {
	kind, name string
	value      any
}

// build is what an overlay makes.
func build(t *testing.T, overlay string) []object {
	t.Helper()
	return buildIn(t, filepath.Join(root, "deploy/k8s/overlays", overlay))
}

func buildIn(t *testing.T, dir string) []object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var objects []object
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, decode(t, text))
	}
	return objects
}

// decode is strict, and looks at what all objects have.
func decode(t *testing.T, text []byte) object {
	t.Helper()
	var meta metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(text, &meta); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	types := map[string]any{
		"v1/ServiceAccount": corev1.ServiceAccount{}, "v1/ConfigMap": corev1.ConfigMap{}, "v1/Service": corev1.Service{},
		"apps/v1/Deployment": appsv1.Deployment{}, "batch/v1/Job": batchv1.Job{}, "batch/v1/CronJob": batchv1.CronJob{},
		"autoscaling/v2/HorizontalPodAutoscaler": autoscalingv2.HorizontalPodAutoscaler{},
		"networking.k8s.io/v1/NetworkPolicy":     networkingv1.NetworkPolicy{}, "policy/v1/PodDisruptionBudget": policyv1.PodDisruptionBudget{},
		"monitoring.coreos.com/v1/ServiceMonitor": monitoringv1.ServiceMonitor{}, "monitoring.coreos.com/v1/PrometheusRule": monitoringv1.PrometheusRule{},
	}
	blank, known := types[meta.APIVersion+"/"+meta.Kind]
	if !known {
		t.Fatalf("%s %s is of a type that this test does not know", meta.APIVersion, meta.Kind)
	}
	value := reflect.New(reflect.TypeOf(blank)).Interface()
	if err := yaml.UnmarshalStrict(text, value); err != nil {
		t.Errorf("%s %s: %v", meta.Kind, meta.Name, err)
	}
	if meta.Labels["app.kubernetes.io/name"] != "orphan-cleaner" {
		t.Errorf("%s %s has the labels %v", meta.Kind, meta.Name, meta.Labels)
	}
	if meta.Namespace != "nova" {
		t.Errorf("%s %s is in namespace %q", meta.Kind, meta.Name, meta.Namespace)
	}
	return object{meta.Kind, meta.Name, value}
}

// find is the one object of a type and a name.
func find[T any](t *testing.T, objects []object, name string) *T {
	t.Helper()
	for _, o := range objects {
		if value, ok := o.value.(*T); ok && o.name == name {
			return value
		}
	}
	t.Fatalf("there is no %T %s", *new(T), name)
	return nil
}

// pods are the templates of all pods, by kind and name.
func pods(objects []object) map[string]corev1.PodTemplateSpec {
	found := map[string]corev1.PodTemplateSpec{}
	for _, o := range objects {
		switch value := o.value.(type) {
		case *appsv1.Deployment:
			found["Deployment "+o.name] = value.Spec.Template
		case *batchv1.Job:
			found["Job "+o.name] = value.Spec.Template
		case *batchv1.CronJob:
			found["CronJob "+o.name] = value.Spec.JobTemplate.Spec.Template
		}
	}
	return found
}

func overlays(t *testing.T, test func(t *testing.T, overlay string, objects []object)) {
	t.Helper()
	for _, overlay := range []string{"deployment", "cronjob"} {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			test(t, overlay, build(t, overlay))
		})
	}
}

func is[T comparable](p *T, want T) bool { return p != nil && *p == want }

// No pod can do more than it must.
func TestPodsAreConfined(t *testing.T) {
	t.Parallel()
	overlays(t, func(t *testing.T, _ string, objects []object) {
		all := pods(objects)
		if len(all) != 4 {
			t.Errorf("there are %d pods: %v", len(all), all)
		}
		for name, template := range all {
			spec := template.Spec
			if !is(spec.AutomountServiceAccountToken, false) || spec.ServiceAccountName != "orphan-cleaner" {
				t.Errorf("%s has a token of %q", name, spec.ServiceAccountName)
			}
			if s := spec.SecurityContext; s == nil || !is(s.RunAsNonRoot, true) || !is(s.RunAsUser, 65532) || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s is not confined: %+v", name, s)
			}
			if spec.HostNetwork || spec.HostPID || spec.HostIPC || len(spec.InitContainers) != 0 || len(spec.Containers) != 1 {
				t.Errorf("%s: %+v", name, spec)
			}
			c := spec.Containers[0]
			if s := c.SecurityContext; s == nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) ||
				s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) != 0 {
				t.Errorf("%s's container is not confined: %+v", name, s)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s has no bounds: %+v", name, c.Resources)
			}
			if len(c.Command) != 0 || len(c.Args) == 0 {
				t.Errorf("%s: command %v, args %v: the image has the command", name, c.Command, c.Args)
			}
			if !regexp.MustCompile(`^ghcr\.io/nova-social/orphan-cleaner:v\d+\.\d+\.\d+$`).MatchString(c.Image) {
				t.Errorf("%s is of the image %s", name, c.Image)
			}
			if len(c.Env) != 0 && !isMigrate(c) {
				t.Errorf("%s has settings of its own: %v", name, c.Env)
			}
			for _, v := range spec.Volumes {
				if v.Secret == nil || !is(v.Secret.DefaultMode, 0o440) {
					t.Errorf("%s mounts %+v", name, v)
				}
			}
		}
	})
}

// isMigrate is the job that brings the schema up: it cannot be changed, so its settings are its own.
func isMigrate(c corev1.Container) bool {
	return slices.Equal(c.Args, []string{"migrate", "up"})
}

// A change of the settings changes nothing of a job: the API server would refuse it.
func TestSettingsLeaveTheJobAlone(t *testing.T) {
	t.Parallel()
	copied := filepath.Join(t.TempDir(), "k8s")
	if err := os.CopyFS(copied, os.DirFS(root+"deploy/k8s")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(copied, "base/kustomization.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "RETENTION=30d", "RETENTION=45d", 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil || changed == string(text) {
		t.Fatal(err)
	}
	for _, overlay := range []string{"deployment", "cronjob"} {
		before, after := build(t, overlay), buildIn(t, filepath.Join(copied, "overlays", overlay))
		if !reflect.DeepEqual(find[batchv1.Job](t, before, "orphan-cleaner-migrate"), find[batchv1.Job](t, after, "orphan-cleaner-migrate")) {
			t.Errorf("%s: the job changes with the settings", overlay)
		}
	}
}

// Settings are settings that the program has; the database URL is a file, of a
// secret that is mounted where the setting says.
func TestSettings(t *testing.T) {
	t.Parallel()
	sources, err := filepath.Glob(root + "cmd/orphan-cleaner/*.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"GOMEMLIMIT": true}
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`env:"(\w+)"`).FindAllStringSubmatch(string(text), -1) {
			known[found[1]] = true
		}
	}
	overlays(t, func(t *testing.T, _ string, objects []object) {
		var settings *corev1.ConfigMap
		for _, o := range objects {
			if o.kind == "ConfigMap" {
				settings = o.value.(*corev1.ConfigMap)
			}
		}
		for name := range settings.Data {
			if !known[name] {
				t.Errorf("the program has no setting %s", name)
			}
		}
		if _, there := settings.Data["DATABASE_URL"]; there {
			t.Error("the database's password would be in a ConfigMap")
		}
		secrets := map[string]string{}
		for name, template := range pods(objects) {
			c := template.Spec.Containers[0]
			if isMigrate(c) {
				if len(c.EnvFrom) != 0 || len(c.Env) != 1 || c.Env[0].Name != "DATABASE_URL_FILE" || c.Env[0].Value != settings.Data["DATABASE_URL_FILE"] {
					t.Errorf("%s has its settings from %+v, %+v", name, c.EnvFrom, c.Env)
				}
			} else if len(c.EnvFrom) != 1 || c.EnvFrom[0].ConfigMapRef == nil || c.EnvFrom[0].ConfigMapRef.Name != settings.Name {
				t.Errorf("%s has its settings from %+v, not %s", name, c.EnvFrom, settings.Name)
			}
			if c.Args[0] != "status" && len(c.VolumeMounts) != 1 || settings.Data["DATABASE_URL_FILE"] != c.VolumeMounts[0].MountPath+"/url" || c.VolumeMounts[0].Name != template.Spec.Volumes[0].Name {
				t.Errorf("%s mounts %+v", name, c.VolumeMounts)
			}
			secrets[c.Args[0]] = template.Spec.Volumes[0].Secret.SecretName
		}
		for command, secret := range secrets {
			want := "orphan-cleaner-migrator"
			switch command {
			case "run", "serve":
				want = "orphan-cleaner-runner"
			case "status":
				want = "orphan-cleaner-restorer"
			}
			if secret != want {
				t.Errorf("%s connects as %s, want %s", command, secret, want)
			}
		}
	})
}

// A run is never made twice at once, and never again at once.
func TestCronJobs(t *testing.T) {
	t.Parallel()
	objects := build(t, "cronjob")
	for _, name := range []string{"orphan-cleaner", "orphan-cleaner-prune"} {
		spec := find[batchv1.CronJob](t, objects, name).Spec
		if spec.ConcurrencyPolicy != batchv1.ForbidConcurrent || !is(spec.TimeZone, "Etc/UTC") || spec.StartingDeadlineSeconds == nil ||
			spec.SuccessfulJobsHistoryLimit == nil || spec.FailedJobsHistoryLimit == nil {
			t.Errorf("%s: %+v", name, spec)
		}
		job := spec.JobTemplate.Spec
		if !is(job.BackoffLimit, 0) || job.ActiveDeadlineSeconds == nil || job.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
			t.Errorf("%s: %+v", name, job)
		}
	}
	job := find[batchv1.CronJob](t, objects, "orphan-cleaner").Spec.JobTemplate.Spec
	if *job.ActiveDeadlineSeconds >= 3600 {
		t.Error("a run may last longer than an interval")
	}
	refusals := job.PodFailurePolicy.Rules[1]
	if refusals.Action != batchv1.PodFailurePolicyActionFailJob || !slices.Equal(refusals.OnExitCodes.Values, []int32{2, 3, 4}) || *refusals.OnExitCodes.ContainerName != job.Template.Spec.Containers[0].Name {
		t.Errorf("%+v", refusals)
	}
	if job.Template.Spec.Hostname == "" {
		t.Error("each pod would leave a group of its own in the Pushgateway")
	}
}

// Those who select pods select these.
func TestSelectors(t *testing.T) {
	t.Parallel()
	overlays(t, func(t *testing.T, overlay string, objects []object) {
		matches := func(who string, selector *metav1.LabelSelector, want ...string) {
			t.Helper()
			compiled, err := metav1.LabelSelectorAsSelector(selector)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for name, template := range pods(objects) {
				if compiled.Matches(labels.Set(template.Labels)) {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s selects %v, want %v", who, got, want)
			}
		}
		const oncall = "Deployment orphan-cleaner-oncall"
		matches("the pod for people on call", find[appsv1.Deployment](t, objects, "orphan-cleaner-oncall").Spec.Selector, oncall)
		policy := find[networkingv1.NetworkPolicy](t, objects, "orphan-cleaner").Spec
		if overlay == "cronjob" {
			matches("the network policy", &policy.PodSelector, "CronJob orphan-cleaner", "CronJob orphan-cleaner-prune", oncall, "Job orphan-cleaner-migrate")
			return
		}
		const serve = "Deployment orphan-cleaner"
		deployment := find[appsv1.Deployment](t, objects, "orphan-cleaner").Spec
		matches("the network policy", &policy.PodSelector, "CronJob orphan-cleaner-prune", serve, oncall, "Job orphan-cleaner-migrate")
		matches("the deployment", deployment.Selector, serve)
		matches("its spread", deployment.Template.Spec.TopologySpreadConstraints[0].LabelSelector, serve)
		matches("the budget", find[policyv1.PodDisruptionBudget](t, objects, "orphan-cleaner").Spec.Selector, serve)
		service := find[corev1.Service](t, objects, "orphan-cleaner")
		matches("the service", &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, serve)
		monitor := find[monitoringv1.ServiceMonitor](t, objects, "orphan-cleaner").Spec
		if compiled, err := metav1.LabelSelectorAsSelector(&monitor.Selector); err != nil || !compiled.Matches(labels.Set(service.Labels)) || monitor.Endpoints[0].Port != service.Spec.Ports[0].Name {
			t.Errorf("the service monitor does not find the service: %+v %v", monitor, err)
		}
		c := deployment.Template.Spec.Containers[0]
		for name, want := range map[string]string{"/healthz": c.LivenessProbe.HTTPGet.Path, "/readyz": c.ReadinessProbe.HTTPGet.Path} {
			if name != want {
				t.Errorf("the probe asks %s, want %s", want, name)
			}
		}
		if c.Ports[0].Name != "metrics" || c.Ports[0].ContainerPort != 9091 || service.Spec.Ports[0].TargetPort.StrVal != c.Ports[0].Name {
			t.Errorf("ports: %+v, %+v", c.Ports, service.Spec.Ports)
		}
		if !is(deployment.Template.Spec.TerminationGracePeriodSeconds, 30) {
			t.Error("serve takes up to 10 s to end")
		}
	})
}

// The network lets through what a run needs and nothing else.
func TestNetworkPolicy(t *testing.T) {
	t.Parallel()
	overlays(t, func(t *testing.T, overlay string, objects []object) {
		spec := find[networkingv1.NetworkPolicy](t, objects, "orphan-cleaner").Spec
		var out []int32
		for _, rule := range spec.Egress {
			if len(rule.To) == 0 || len(rule.Ports) == 0 {
				t.Errorf("this lets everything out: %+v", rule)
			}
			for _, port := range rule.Ports {
				out = append(out, port.Port.IntVal)
			}
		}
		want := []int32{9080, 5432, 53, 53}
		if overlay == "cronjob" {
			want = append(want, 9091)
		}
		if !slices.Equal(out, want) || len(spec.PolicyTypes) != 2 {
			t.Errorf("out: %v, want %v; %v", out, want, spec.PolicyTypes)
		}
		if len(spec.Ingress) != 1 || len(spec.Ingress[0].From) != 1 || spec.Ingress[0].Ports[0].Port.IntVal != 9091 {
			t.Errorf("in: %+v", spec.Ingress)
		}
	})
}

// The rules for the operator are those that promtool tests.
func TestRulesAgree(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	overlays(t, func(t *testing.T, _ string, objects []object) {
		got := find[monitoringv1.PrometheusRule](t, objects, "orphan-cleaner").Spec
		if len(got.Groups) == 0 || !reflect.DeepEqual(got, want) {
			t.Error("deploy/k8s/components/alerts/prometheusrule.yaml is not deploy/prometheus/rules.yaml: run `make k8s-rules`")
		}
	})
}

// A misspelt field fails, so that the other tests may rely on what was decoded.
func TestDecodingIsStrict(t *testing.T) {
	t.Parallel()
	if err := yaml.UnmarshalStrict([]byte(strings.Replace("spec: {replicas: 2}", "replicas", "replica", 1)), &appsv1.Deployment{}); err == nil {
		t.Error("a field that there is not was accepted")
	}
}

// The two services that more replicas help scale at the figures of the runbook's
// chapter 7.1, from the replicas that it gives them; orphan-cleaner does not.
func TestAutoscaling(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	objects := buildIn(t, root+"deploy/k8s/autoscaling")
	if len(objects) != 2 {
		t.Fatalf("there are %d objects", len(objects))
	}
	for _, name := range []string{"messaging-service", "auth-service"} {
		spec := find[autoscalingv2.HorizontalPodAutoscaler](t, objects, name).Spec
		row := regexp.MustCompile(`(?m)^\| ` + name + ` \| .* \| (\d) \|$`).FindStringSubmatch(string(text))
		if row == nil || spec.MinReplicas == nil || strconv.Itoa(int(*spec.MinReplicas)) != row[1] || spec.MaxReplicas <= *spec.MinReplicas {
			t.Errorf("%s has replicas %v to %d; the runbook says %q", name, spec.MinReplicas, spec.MaxReplicas, row)
		}
		for _, m := range spec.Metrics {
			threshold := regexp.MustCompile(`(?i)(?m)^- ` + string(m.Resource.Name) + ` > (\d+)%`).FindStringSubmatch(string(text))
			if threshold == nil || strconv.Itoa(int(*m.Resource.Target.AverageUtilization)) != threshold[1] {
				t.Errorf("%s scales at %d of %s; the runbook says %q", name, *m.Resource.Target.AverageUtilization, m.Resource.Name, threshold)
			}
		}
		if len(spec.Metrics) != 2 || spec.ScaleTargetRef.Name != name || spec.ScaleTargetRef.Kind != "Deployment" {
			t.Errorf("%s: %+v", name, spec)
		}
	}
}
