// sealserve in Azure Container Instances: a container group with a public address, an identity of
// its own, a container for registered keys that only this identity may use, and a model from a file
// share that the service loads only if it has the given digest. container-group.yaml is the same
// group for `az container create`. README.md in this directory has the steps.

@description('Name of the container group. It is also the first part of the address.')
param name string = 'sealserve'

@description('Region of all resources that this template makes.')
param location string = resourceGroup().location

@description('The image, with its registry: REGISTRY.azurecr.io/sealserve:VERSION.')
param image string

@description('Name of the registry, in this resource group. The identity gets AcrPull on it.')
param registryName string

@description('Name of the storage account of the models, in this resource group.')
param modelAccountName string

@description('Name of the file share with the models.')
param modelShareName string = 'models'

@description('Name under which the model is served.')
param modelName string

@description('Name of the model file in the share: .skops or .npz, or .pkl with trustPickle.')
param modelFile string

@description('SHA-256 of that file, in hexadecimal. The service loads no other file.')
@minLength(64)
@maxLength(64)
param modelSha256 string

@description('Least and greatest value of every feature, as LO,HI.')
param inputRange string = '0,1'

@description('What replies tell about the weights: private hides them, open also serves encrypted-inference clients.')
@allowed(['private', 'open'])
param weights string = 'private'

@description('Whether to load a pickle, which runs the code of its author.')
param trustPickle bool = false

@description('Name of the storage account of registered keys. It is made here, and accepts identities only.')
@minLength(3)
@maxLength(24)
param keyAccountName string

@description('Blob container for registered keys. The identity gets Storage Blob Data Contributor on it and no more.')
param keyContainerName string = 'keys'

@description('Number of cores, a decimal number.')
param cpu string = '1'

@description('Memory in GB, a decimal number.')
param memoryInGB string = '1'

@description('Certificate of the service, with its chain, in PEM.')
@secure()
param tlsCertificate string

@description('Private key of the certificate, in PEM.')
@secure()
param tlsPrivateKey string

@description('Certificate of the authority that issued the certificate, in PEM. The probes and the clients trust it.')
@secure()
param tlsAuthority string

@description('File of identities as `sealserve tokens new` writes it: who may call. It holds digests, no tokens.')
@secure()
param identities string

@description('Tags of the container group. By default they are those of the Azure ML guide.')
param tags object = {
  data: 'MNIST'
  method: 'sklearn'
  description: 'Encrypted Predict MNIST with sklearn + SEAL'
}

var port = 50051
var serverName = '${name}.${location}.azurecontainer.io'
var probe = [
  'sealserve'
  'health'
]
var command = [
  'sealserve'
  'serve'
  '--model'
  '${modelName}=${modelFile}@sha256:${modelSha256}'
  '--input-range'
  inputRange
  '--weights'
  weights
]
var roles = 'Microsoft.Authorization/roleDefinitions'
var acrPull = subscriptionResourceId(roles, '7f951dda-4ed3-4680-a7ca-43fe172d538d')
var storageBlobDataContributor = subscriptionResourceId(roles, 'ba92f5b4-2d11-453d-a403-e96b0029c9fe')

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-identity'
  location: location
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = {
  name: registryName
}

resource modelAccount 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: modelAccountName
}

resource keyAccount 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: keyAccountName
  location: location
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource keyBlobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: keyAccount
  name: 'default'
}

resource keyContainer 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: keyBlobs
  name: keyContainerName
  properties: {
    publicAccess: 'None'
  }
}

resource mayPull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, identity.id, acrPull)
  scope: registry
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: acrPull
  }
}

resource mayKeepKeys 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(keyContainer.id, identity.id, storageBlobDataContributor)
  scope: keyContainer
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: storageBlobDataContributor
  }
}

resource group 'Microsoft.ContainerInstance/containerGroups@2023-05-01' = {
  name: name
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  dependsOn: [
    mayPull
    mayKeepKeys
  ]
  properties: {
    osType: 'Linux'
    sku: 'Standard'
    restartPolicy: 'Always'
    ipAddress: {
      type: 'Public'
      dnsNameLabel: name
      ports: [
        {
          protocol: 'TCP'
          port: port
        }
      ]
    }
    imageRegistryCredentials: [
      {
        server: '${registryName}.azurecr.io'
        identity: identity.id
      }
    ]
    containers: [
      {
        name: 'sealserve'
        properties: {
          image: image
          command: trustPickle ? concat(command, ['--trust-pickle']) : command
          ports: [
            {
              protocol: 'TCP'
              port: port
            }
          ]
          resources: {
            requests: {
              cpu: json(cpu)
              memoryInGB: json(memoryInGB)
            }
            limits: {
              cpu: json(cpu)
              memoryInGB: json(memoryInGB)
            }
          }
          environmentVariables: [
            {
              name: 'AZURE_CLIENT_ID'
              value: identity.properties.clientId
            }
            {
              name: 'SEALSERVE_KEY_STORE'
              value: 'https://${keyAccountName}.blob.${environment().suffixes.storage}/${keyContainerName}'
            }
            {
              name: 'SEALSERVE_TLS_CERTIFICATE'
              value: '/tls/tls.crt'
            }
            {
              name: 'SEALSERVE_TLS_PRIVATE_KEY'
              value: '/tls/tls.key'
            }
            {
              name: 'SEALSERVE_IDENTITIES'
              value: '/tls/identities.toml'
            }
            {
              name: 'SEALSERVE_CA_CERTIFICATE'
              value: '/tls/ca.crt'
            }
            {
              name: 'SEALSERVE_SERVER_NAME'
              value: serverName
            }
          ]
          volumeMounts: [
            {
              name: 'models'
              mountPath: '/models'
              readOnly: true
            }
            {
              name: 'tls'
              mountPath: '/tls'
              readOnly: true
            }
          ]
          livenessProbe: {
            exec: {
              command: probe
            }
            initialDelaySeconds: 30
            periodSeconds: 30
            timeoutSeconds: 10
            failureThreshold: 3
          }
          readinessProbe: {
            exec: {
              command: probe
            }
            initialDelaySeconds: 5
            periodSeconds: 15
            timeoutSeconds: 10
            failureThreshold: 3
          }
        }
      }
    ]
    volumes: [
      {
        name: 'models'
        azureFile: {
          shareName: modelShareName
          storageAccountName: modelAccountName
          storageAccountKey: modelAccount.listKeys().keys[0].value
          readOnly: true
        }
      }
      {
        name: 'tls'
        secret: {
          'tls.crt': base64(tlsCertificate)
          'tls.key': base64(tlsPrivateKey)
          'ca.crt': base64(tlsAuthority)
          'identities.toml': base64(identities)
        }
      }
    ]
  }
}

@description('Address at which clients find the service.')
output address string = '${group.properties.ipAddress.fqdn}:${port}'
