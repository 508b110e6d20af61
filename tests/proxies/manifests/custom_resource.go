package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

type object = map[string]any

var between = regexp.MustCompile(`(?m)^---\s*$`)

// The documents of a file; lines of a Helm template around them are left out.
func documents(file string) ([]object, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "{{") {
			lines = append(lines, line)
		}
	}
	var found []object
	for _, part := range between.Split(strings.Join(lines, "\n"), -1) {
		var document object
		if err := yaml.UnmarshalStrict([]byte(part), &document); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if document != nil {
			found = append(found, document)
		}
	}
	return found, nil
}

// Each document by the schema of its CustomResourceDefinition. Rules in CEL are not looked at.
func checkCustomResources(manifest string, definitions []string) error {
	resources, err := documents(manifest)
	if err != nil {
		return err
	}
	for _, resource := range resources {
		schema, err := schemaOf(resource, definitions)
		if err != nil {
			return err
		}
		compiler := jsonschema.NewCompiler()
		compiler.DefaultDraft(jsonschema.Draft4)
		if err := compiler.AddResource("schema.json", strict(schema)); err != nil {
			return err
		}
		compiled, err := compiler.Compile("schema.json")
		if err != nil {
			return err
		}
		// What every resource has, a schema need not name.
		for _, name := range []string{"apiVersion", "kind", "metadata"} {
			delete(resource, name)
		}
		if err := compiled.Validate(resource); err != nil {
			return err
		}
	}
	return nil
}

func schemaOf(resource object, definitions []string) (object, error) {
	for _, file := range definitions {
		found, err := documents(file)
		if err != nil {
			return nil, err
		}
		for _, definition := range found {
			spec, _ := definition["spec"].(object)
			names, _ := spec["names"].(object)
			versions, _ := spec["versions"].([]any)
			for _, each := range versions {
				version, _ := each.(object)
				name := fmt.Sprintf("%s/%s", spec["group"], version["name"])
				if names["kind"] == resource["kind"] && name == resource["apiVersion"] && version["served"] == true {
					schema, _ := version["schema"].(object)
					return schema["openAPIV3Schema"].(object), nil
				}
			}
		}
	}
	return nil, fmt.Errorf("no definition of %s %s", resource["apiVersion"], resource["kind"])
}

// What a structural schema means by itself: a member that it does not name is none, and null where it says so.
func strict(value any) any {
	switch node := value.(type) {
	case []any:
		all := make([]any, len(node))
		for index, item := range node {
			all[index] = strict(item)
		}
		return all
	case object:
		changed := object{}
		for name, member := range node {
			if name == "format" || name == "default" || name == "enum" {
				continue
			}
			changed[name] = strict(member)
		}
		if enum, is := node["enum"].([]any); is {
			changed["enum"] = enum
		}
		_, hasProperties := node["properties"].(object)
		isOpen := node["x-kubernetes-preserve-unknown-fields"] == true || node["additionalProperties"] != nil
		if hasProperties && node["type"] == "object" && !isOpen {
			changed["additionalProperties"] = false
		}
		if kind, is := node["type"].(string); is && node["nullable"] == true {
			changed["type"] = []any{kind, "null"}
		}
		return changed
	}
	return value
}
